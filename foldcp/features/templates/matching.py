"""Matching of a complex's chains to the chains of a template. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from Bio.Align import PairwiseAligner
from scipy.optimize import linear_sum_assignment

from foldcp.complex import Complex, Template
from foldcp.features.templates.structure import TemplateChain, resolve_chain_names

_NO_GAPS = -1000.0


@dataclass(frozen=True)
class ChainMatch:
    """Residue r of a chain of the complex has residue r + offset of a template's chain."""

    chain: int
    template: TemplateChain
    offset: int


def match_chains(
    complex: Complex, template: Template, structure: dict[str, TemplateChain]
) -> list[ChainMatch]:
    """The matches of a template: as it says, or those of the largest global alignment score.

    Among equal assignments the order of the chains decides (in Boltz, the hash of their names in
    that process). Raises ValueError naming the file, for a chain that is missing, not a protein or
    ambiguous.
    """
    location = f"complex {complex.name}, template {template.path}"
    proteins = {chain.name: chain.sequence for chain in complex.chains if chain.kind == "protein"}
    queries = list(template.chains) or list(proteins)
    if unknown := [name for name in queries if name not in proteins]:
        raise ValueError(f"{location}: the complex has no protein chain {unknown[0]!r}")
    try:
        labels = resolve_chain_names(structure, template.template_chains) or list(structure)
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from error
    if template.force and template.threshold is None:
        raise ValueError(f"{location}: a forced template needs a threshold")
    if template.chains and template.template_chains:
        if len(queries) != len(labels):
            raise ValueError(
                f"{location}: cannot match {len(queries)} chains to {len(labels)} one by one"
            )
        pairs = list(zip(queries, labels, strict=True))
    else:
        scores = np.empty((len(queries), len(labels)))
        for i, query in enumerate(queries):
            for j, label in enumerate(labels):
                scores[i, j] = _score(proteins[query], structure[label].sequence)
        assigned = linear_sum_assignment(scores, maximize=True)
        pairs = [(queries[i], labels[j]) for i, j in zip(*assigned, strict=True)]
    index = {chain.name: i for i, chain in enumerate(complex.chains)}
    return [
        ChainMatch(index[query], structure[label], offset)
        for query, label in pairs
        for offset in _offsets(proteins[query], structure[label].sequence)
    ]


@cache
def _score(query: str, template: str) -> float:
    """Global alignment with BLAST's scores for proteins."""
    aligner = PairwiseAligner(scoring="blastp")
    aligner.mode = "global"
    return aligner.score(query, template)


@cache
def _offsets(query: str, template: str) -> tuple[int, ...]:
    """Position in the template less that in the query, of every best local ungapped alignment."""
    aligner = PairwiseAligner(scoring="blastp")
    aligner.mode = "local"
    aligner.open_gap_score = _NO_GAPS
    aligner.extend_gap_score = _NO_GAPS
    starts = [
        np.asarray(alignment.coordinates)[:, 0].tolist()
        for alignment in aligner.align(query, template)
    ]
    return tuple(template_start - query_start for query_start, template_start in starts)
