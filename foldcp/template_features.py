"""Structures to imitate -> frames and coordinates per token."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from Bio.Align import PairwiseAligner
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from foldcp.complex import Complex, Template
from foldcp.template_structure import TemplateChain, read_template
from foldcp.tokens import Tables

_NO_GAPS = -1000.0


@dataclass(frozen=True)
class Match:
    """Residue r of our chain is imitated from residue r + offset of a template's chain."""

    chain: int
    template: TemplateChain
    offset: int


def template_features(complex: Complex, tables: Tables) -> dict[str, Tensor]:
    """The fields of `Features` for T templates; a file given several times is one template, as in Boltz, and one
    that matches nothing is none. Raises ValueError for a chain that does not exist or is no protein."""
    files: dict[Path, list[Match]] = {}
    last: dict[Path, Template] = {}
    structures: dict[Path, dict[str, TemplateChain]] = {}
    for template in complex.templates:
        if template.path not in structures:
            structures[template.path] = read_template(template.path)
        if matches := _matches(complex, template, structures[template.path]):
            files.setdefault(template.path, []).extend(matches)
            last[template.path] = template
    rows = [_row(tables, matches, number) for number, matches in enumerate(files.values())]
    empty = _empty_row(len(tables.tokens.type))
    features = {name: torch.from_numpy(np.stack([row[name] for row in [empty, *rows]])[1:]) for name in empty}
    thresholds = [t.threshold if t.force and t.threshold is not None else math.inf for t in last.values()]
    return {
        **features,
        "template_force": torch.tensor([t.force for t in last.values()], dtype=torch.bool),
        "template_force_threshold": torch.tensor(thresholds, dtype=torch.float32),
    }


def _matches(complex: Complex, template: Template, structure: dict[str, TemplateChain]) -> list[Match]:
    """Which chain imitates which: as the template says, or the assignment of the largest global alignment score.

    Among equal assignments the order of the chains decides (in Boltz, the hash of their names in that process).
    """
    where = f"complex {complex.name}, template {template.path}"
    proteins = {chain.name: chain.sequence for chain in complex.chains if chain.kind == "protein"}
    ours = list(template.chains) or list(proteins)
    theirs = list(template.template_chains) or list(structure)
    if unknown := [name for name in ours if name not in proteins]:
        raise ValueError(f"{where}: {unknown[0]!r} is no protein chain of the complex")
    if unknown := [name for name in theirs if name not in structure]:
        known = ", ".join(structure)
        raise ValueError(f"{where}: {unknown[0]!r} is no protein chain of the file, which has {known}")
    if template.force and template.threshold is None:
        raise ValueError(f"{where}: a forced template needs a threshold")
    if template.chains and template.template_chains:
        if len(ours) != len(theirs):
            raise ValueError(f"{where}: {len(ours)} chains cannot imitate {len(theirs)} one by one")
        pairs = list(zip(ours, theirs, strict=True))
    else:
        scores = [[_score(proteins[a], structure[b].sequence) for b in theirs] for a in ours]
        assigned = linear_sum_assignment(np.array(scores), maximize=True)
        pairs = [(ours[i], theirs[j]) for i, j in zip(*assigned, strict=True)]
    place = {chain.name: i for i, chain in enumerate(complex.chains)}
    return [
        Match(place[a], structure[b], offset)
        for a, b in pairs
        for offset in _offsets(proteins[a], structure[b].sequence)
    ]


@cache
def _score(query: str, template: str) -> float:
    """Global alignment with BLAST's scores for proteins."""
    aligner = PairwiseAligner(scoring="blastp")
    aligner.mode = "global"
    return aligner.score(query, template)


@cache
def _offsets(query: str, template: str) -> tuple[int, ...]:
    """Place in the template less place in the query, of every best local alignment without gaps."""
    aligner = PairwiseAligner(scoring="blastp")
    aligner.mode = "local"
    aligner.open_gap_score = _NO_GAPS
    aligner.extend_gap_score = _NO_GAPS
    starts = [np.asarray(alignment.coordinates)[:, 0].tolist() for alignment in aligner.align(query, template)]
    return tuple(theirs - ours for ours, theirs in starts)


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
    """One template; the chains it gives something see each other, every other chain sees itself alone."""
    row = _empty_row(len(tables.tokens.type))
    visibility = -1 - np.arange(len(tables.chains.name))
    for match in matches:
        theirs = match.template
        tokens = np.flatnonzero(tables.token_chain == match.chain)
        # All residues on the diagonal of the alignment, not its own stretch alone, as in Boltz.
        places = tables.token_number[tokens] + match.offset
        inside = (places >= 0) & (places < len(theirs.type))
        tokens, places = tokens[inside], places[inside]
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
