"""Differences between our scores of a sample and Boltz's."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from foldcp.metrics.scores import Scores
from tests.parity.support.table import largest

WHOLE_SCORES = (
    "ptm",
    "iptm",
    "ligand_iptm",
    "protein_iptm",
    "complex_plddt",
    "complex_iplddt",
    "complex_pde",
    "complex_ipde",
    "confidence_score",
)
# Boltz gives 0 where such a score does not apply.
NONE_IS_ZERO = ("iptm", "ligand_iptm", "protein_iptm", "complex_ipde")


def of_scores(ours: Scores, theirs: dict[str, Tensor], k: int) -> Iterator[tuple[str, float]]:
    """Differences in units of max(1, |score|): most run from 0 to 1, the others are in Å."""
    differences = []
    for name in WHOLE_SCORES:
        expected = float(theirs[name][k])
        got = getattr(ours, name)
        if name in NONE_IS_ZERO and math.isnan(got):
            got = 0.0
        differences.append(abs(got - expected) / max(1.0, abs(expected)))
    yield "scores of the complex", max(differences)
    yield (
        "scores of pairs of chains",
        largest(torch.tensor(ours.pair_iptm_boltz).T, theirs["pair_chains_iptm"][k]),
    )
