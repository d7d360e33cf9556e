"""Scores of directed pairs of chains: those of one PAE cutoff, and all others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# Å; the cutoffs of PAE that can be asked for, and those of the publications
PAE_CUTOFFS = (8, 10, 12, 15)
IPSAE_CUTOFF = 10
LIS_CUTOFF = 12
DEFAULT_CUTOFFS = (IPSAE_CUTOFF, LIS_CUTOFF)


@dataclass(frozen=True)
class CutoffScores:
    """Scores [C, C] of the pairs of tokens i in a, j in b with expected PAE_ij below a cutoff c in
    Å; the diagonal and pairs with a ligand are NaN. Arrays are float32, but for numbers of pairs.

        ipsae_d0res, ipsae_d0chn, ipsae_d0dom: as those of `Scores`, with this cutoff.
        lis: mean of (c - PAE_ij) / c over these pairs; 0 if there are none (AFM-LIS, Kim 2024). The
            program's score is the mean of both directions.
        lia: float64, number of these pairs. AFM-LIS's script gives the mean of both directions, the
            notebooks of 2024 their sum.
        clis, clia: lis and lia of the pairs that are in contact, too (see `Scores.contacts`).
        ilis: sqrt(lis clis), in this direction, as AFM-LIS's script takes it.
    """

    ipsae_d0res: Float[np.ndarray, "C C"]
    ipsae_d0chn: Float[np.ndarray, "C C"]
    ipsae_d0dom: Float[np.ndarray, "C C"]
    lis: Float[np.ndarray, "C C"]
    lia: Float[np.ndarray, "C C"]
    clis: Float[np.ndarray, "C C"]
    clia: Float[np.ndarray, "C C"]
    ilis: Float[np.ndarray, "C C"]
