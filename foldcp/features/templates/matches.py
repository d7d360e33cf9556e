"""Which chains of a complex imitate which chains of a template, and which residues. No torch
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from Bio.Align import PairwiseAligner
from scipy.optimize import linear_sum_assignment

from foldcp.complex import Complex, Template
from foldcp.features.templates.structure import TemplateChain, chain_labels

_NO_GAPS = -1000.0


@dataclass(frozen=True)
class Match:
    """Residue r of our chain is imitated from residue r + offset of a template's chain."""

    chain: int
    template: TemplateChain
    offset: int


def matches(
    complex: Complex, template: Template, structure: dict[str, TemplateChain]
) -> list[Match]:
    """Which chain imitates which: as the template says, or the assignment of the largest global
    alignment score.

    Among equal assignments the order of the chains decides (in Boltz, the hash of their names in
    that process). Raises ValueError naming the file for a chain that does not exist, is no protein
    or is not the only one of its name.
    """
    where = f"complex {complex.name}, template {template.path}"
    proteins = {chain.name: chain.sequence for chain in complex.chains if chain.kind == "protein"}
    ours = list(template.chains) or list(proteins)
    if unknown := [name for name in ours if name not in proteins]:
        raise ValueError(f"{where}: {unknown[0]!r} is no protein chain of the complex")
    try:
        theirs = chain_labels(structure, template.template_chains) or list(structure)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
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
    starts = [
        np.asarray(alignment.coordinates)[:, 0].tolist()
        for alignment in aligner.align(query, template)
    ]
    return tuple(theirs - ours for ours, theirs in starts)
