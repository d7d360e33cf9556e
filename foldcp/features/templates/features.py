"""Template features: frames and coordinates of template structures per token of a complex."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.complex import Complex, Template
from foldcp.features.templates.matching import ChainMatch, match_chains
from foldcp.features.templates.structure import TemplateChain, read_template
from foldcp.features.tokens import TokenizedComplex
from foldcp.files import MAX_BYTES, FileSource


def template_features(
    complex: Complex, tokenized: TokenizedComplex, max_bytes: int = MAX_BYTES
) -> dict[str, Tensor]:
    """The fields of `Features` for T templates.

    A file that is given several times is one template, as in Boltz, unless other residues are
    matched, and one that matches nothing is none. Raises ValueError for a file that cannot be read,
    is larger than `max_bytes` or has changed since the complex was planned, and for a chain that is
    missing or not a protein.
    """
    matches: dict[object, list[ChainMatch]] = {}  # by file and residues
    last: dict[object, Template] = {}
    structures: dict[FileSource, dict[str, TemplateChain]] = {}
    for template in complex.templates:
        path = template.path
        if path not in structures:
            digest = complex.digests.get(path, "")
            structures[path] = read_template(path, digest, max_bytes)
        if found := match_chains(complex, template, structures[path]):
            key = (path, template.residues)
            matches.setdefault(key, []).extend(found)
            last[key] = template
    rows = [_row(tokenized, found, number) for number, found in enumerate(matches.values())]
    empty = _empty_row(len(tokenized.tokens.type))
    features = {}
    for name in empty:  # stacked, so that no template gives an array of length 0
        stacked = np.stack([row[name] for row in [empty, *rows]])
        features[name] = torch.from_numpy(stacked[1:])
    thresholds = [
        template.threshold if template.force and template.threshold is not None else math.inf
        for template in last.values()
    ]
    forced = [template.force for template in last.values()]
    return {
        **features,
        "template_force": torch.tensor(forced, dtype=torch.bool),
        "template_force_threshold": torch.tensor(thresholds, dtype=torch.float32),
    }


def _empty_row(num_tokens: int) -> dict[str, np.ndarray]:
    def zeros(*shape: int) -> Float[np.ndarray, "..."]:
        return np.zeros((num_tokens, *shape), dtype=np.float32)

    return {
        "template_res_type": zeros().astype(np.int64),
        "template_frame_rot": zeros(3, 3),
        "template_frame_t": zeros(3),
        "template_cb": zeros(3),
        "template_ca": zeros(3),
        "template_mask_cb": zeros(),
        "template_mask_frame": zeros(),
        "template_mask": zeros(),
        "template_visibility": zeros().astype(np.int64),
    }


def _row(
    tokenized: TokenizedComplex, matches: list[ChainMatch], number: int
) -> dict[str, np.ndarray]:
    """One template: its matched chains see each other, unless apart; others see themselves."""
    row = _empty_row(len(tokenized.tokens.type))
    visibility = -1 - np.arange(len(tokenized.chains.name))
    for match in matches:
        template = match.template
        tokens = np.flatnonzero(tokenized.token_chain == match.chain)
        residues = match.residues[tokenized.token_number[tokens]]
        tokens = tokens[residues >= 0]
        residues = residues[residues >= 0]
        row["template_res_type"][tokens] = template.type[residues]
        row["template_frame_rot"][tokens] = template.frame_rot[residues]
        row["template_frame_t"][tokens] = template.frame_t[residues]
        row["template_cb"][tokens] = template.representative[residues]
        row["template_ca"][tokens] = template.center[residues]
        row["template_mask_cb"][tokens] = template.representative_mask[residues]
        row["template_mask_frame"][tokens] = template.frame_mask[residues]
        row["template_mask"][tokens] = 1
        if len(tokens) and not match.apart:
            visibility[match.chain] = number
    row["template_visibility"] = visibility[tokenized.token_chain]
    return row
