"""Structures to imitate -> frames and coordinates per token."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.complex import Complex, Template
from foldcp.features.templates.matches import Match, matches
from foldcp.features.templates.structure import TemplateChain, read_template
from foldcp.features.tokens import Tables
from foldcp.files import MAX_BYTES


def template_features(
    complex: Complex, tables: Tables, max_bytes: int = MAX_BYTES
) -> dict[str, Tensor]:
    """The fields of `Features` for T templates; a file given several times is one template, as in
    Boltz, and one that matches nothing is none.

    Raises ValueError for a file that cannot be read, is larger than `max_bytes` or another than
    when the complex was planned, and for a chain that does not exist or is no protein.
    """
    files: dict[Path, list[Match]] = {}
    last: dict[Path, Template] = {}
    structures: dict[Path, dict[str, TemplateChain]] = {}
    for template in complex.templates:
        if template.path not in structures:
            digest = complex.digests.get(template.path, "")
            structures[template.path] = read_template(template.path, digest, max_bytes)
        if found := matches(complex, template, structures[template.path]):
            files.setdefault(template.path, []).extend(found)
            last[template.path] = template
    rows = [_row(tables, found, number) for number, found in enumerate(files.values())]
    empty = _empty_row(len(tables.tokens.type))
    features = {
        name: torch.from_numpy(np.stack([row[name] for row in [empty, *rows]])[1:])
        for name in empty
    }
    thresholds = [
        t.threshold if t.force and t.threshold is not None else math.inf for t in last.values()
    ]
    return {
        **features,
        "template_force": torch.tensor([t.force for t in last.values()], dtype=torch.bool),
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


def _row(tables: Tables, matches: list[Match], number: int) -> dict[str, np.ndarray]:
    """One template; the chains it gives something see each other, every other chain sees itself
    alone.
    """
    row = _empty_row(len(tables.tokens.type))
    visibility = -1 - np.arange(len(tables.chains.name))
    for match in matches:
        theirs = match.template
        tokens = np.flatnonzero(tables.token_chain == match.chain)
        # All residues on the diagonal of the alignment, not its own stretch alone, as in Boltz.
        places = tables.token_number[tokens] + match.offset
        inside = (places >= 0) & (places < len(theirs.type))
        tokens = tokens[inside]
        places = places[inside]
        row["template_res_type"][tokens] = theirs.type[places]
        row["template_frame_rot"][tokens] = theirs.frame_rot[places]
        row["template_frame_t"][tokens] = theirs.frame_t[places]
        row["template_cb"][tokens] = theirs.representative[places]
        row["template_ca"][tokens] = theirs.center[places]
        row["template_mask_cb"][tokens] = theirs.representative_mask[places]
        row["template_mask_frame"][tokens] = theirs.frame_mask[places]
        row["template_mask"][tokens] = 1
        visibility[match.chain] = number if len(tokens) else visibility[match.chain]
    row["template_visibility"] = visibility[tables.token_chain]
    return row
