"""Matching of a complex's chains to the chains of a template. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from Bio.Align import PairwiseAligner
from jaxtyping import Int

from foldcp.complex import Complex, Template
from foldcp.features.templates.structure import TemplateChain, resolve_chain_names

_NO_GAPS = -1000.0


@dataclass(frozen=True, eq=False)
class ChainMatch:
    """Which residue of a template's chain each residue of a chain has, both from 0; -1: none.

    Chains that a template matches see each other in it, unless they are `apart`.
    """

    chain: int
    template: TemplateChain
    residues: Int[np.ndarray, " L"]
    apart: bool = False


def match_chains(
    complex: Complex, template: Template, structure: dict[str, TemplateChain]
) -> list[ChainMatch]:
    """The matches of a template: as it says, or those of the largest global alignment score.

    Among equal assignments the order of the chains decides (in Boltz, the hash of their names in
    that process). Raises ValueError naming the file, for a chain that is missing, not a protein or
    ambiguous, and for residues that do not exist.
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
    index = {chain.name: i for i, chain in enumerate(complex.chains)}
    if template.residues:
        if len(labels) != 1:
            raise ValueError(
                f"{location}: residues are matched to those of one chain, but there are "
                f"{', '.join(labels)}"
            )
        found = structure[labels[0]]
        return [
            ChainMatch(index[query], found, _explicit(template, proteins[query], found), apart=True)
            for query in queries
        ]
    pairs = _pairs(location, template, queries, labels, proteins, structure)
    return [
        ChainMatch(index[query], structure[label], residues)
        for query, label in pairs
        for residues in _aligned(proteins[query], structure[label].sequence)
    ]


def _pairs(
    location: str,
    template: Template,
    queries: list[str],
    labels: list[str],
    proteins: dict[str, str],
    structure: dict[str, TemplateChain],
) -> list[tuple[str, str]]:
    """Chains of the complex with those of the template: as named, else by alignment."""
    if template.chains and template.template_chains:
        if len(queries) != len(labels):
            raise ValueError(
                f"{location}: cannot match {len(queries)} chains to {len(labels)} one by one"
            )
        return list(zip(queries, labels, strict=True))
    from scipy.optimize import linear_sum_assignment  # takes long to import

    scores = np.empty((len(queries), len(labels)))
    for i, query in enumerate(queries):
        for j, label in enumerate(labels):
            scores[i, j] = _score(proteins[query], structure[label].sequence)

    assigned = linear_sum_assignment(scores, maximize=True)
    return [(queries[i], labels[j]) for i, j in zip(*assigned, strict=True)]


def _explicit(template: Template, query: str, found: TemplateChain) -> Int[np.ndarray, " L"]:
    """The residues of the template that it says, for each of the query. Raises ValueError."""
    residues = np.full(len(query), -1)
    for number, other in template.residues:
        if not 1 <= number <= len(query):
            raise ValueError(
                f"template {template.path}: residue {number} of a chain of {len(query)}"
            )
        if not 1 <= other <= len(found.sequence):
            raise ValueError(
                f"template {template.path}: there is no residue {other} in its chain "
                f"{found.author}, which has {len(found.sequence)}"
            )
        residues[number - 1] = other - 1
    return residues


def _aligned(query: str, template: str) -> list[Int[np.ndarray, " L"]]:
    """Residues on the diagonal of every best local ungapped alignment.

    All of the diagonal, not the alignment's own stretch alone, as in Boltz.
    """
    found = []
    for offset in _offsets(query, template):
        residues = np.arange(len(query)) + offset
        found.append(np.where((residues >= 0) & (residues < len(template)), residues, -1))
    return found


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
