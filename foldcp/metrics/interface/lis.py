"""LIS, the local interaction score: how far PAE lies below a cutoff, over the pairs where it does
(flyark/AFM-LIS, lis_analysis_colabfold.py; Kim 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.distributed.pipelining import split_range
from foldcp.metrics.chains import CHUNK_PAIRS, ChainRows
from foldcp.metrics.reductions import RowValues


@dataclass(frozen=True)
class LocalInteraction(RowValues):
    """Sums over the tokens of each chain whose PAE, seen from the row, lies below the cutoff c."""

    lis: Float[Tensor, "R C"]  # (c - PAE) / c
    lia: Float[Tensor, "R C"]  # number


def local_interaction(
    pae: Float[Tensor, "R T"], rows: ChainRows, cutoffs: Float[Tensor, "K 1 1"]
) -> tuple[LocalInteraction, ...]:
    """The terms of lis and lia of this rank's rows with each cutoff, from the expected PAE in Å."""
    spans = rows.spans
    R, T = pae.shape
    num_sums = 2 * len(cutoffs)
    shape = (num_sums, -1, spans.num_chains)
    sums = pae.new_zeros((num_sums, R, spans.num_chains))
    for chunk in split_range(R, CHUNK_PAIRS // (num_sums * T)):
        below = cutoffs - pae[chunk]
        terms = torch.cat([below.clamp(min=0), (below > 0).float()])
        sums[:, chunk] = spans.sum_columns(terms.flatten(0, 1)).view(shape)
    lis, lia = sums.split(len(cutoffs))
    return tuple(map(LocalInteraction, lis / cutoffs, lia))
