"""LIS, the local interaction score: how far PAE lies below a cutoff, over the pairs where it does
(flyark/AFM-LIS, lis_analysis_colabfold.py; Kim 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from foldcp.distributed.pipelining import split_range
from foldcp.metrics.chains import CHUNK_PAIRS, ChainRows
from foldcp.metrics.interface.contact_sums import ContactRows
from foldcp.metrics.reductions import RowValues


@dataclass(frozen=True)
class LocalInteraction(RowValues):
    """Sums over the tokens of each chain whose PAE, seen from the row, lies below the cutoff c."""

    lis: Float[Tensor, "R C"]  # (c - PAE) / c
    lia: Float[Tensor, "R C"]  # number


@dataclass(frozen=True)
class ContactInteraction:
    """[a, b]: the same over the contacts of tokens of chain a with those of chain b."""

    clis: Float[np.ndarray, "C C"]
    clia: Float[np.ndarray, "C C"]


def local_interaction(pae: Float[Tensor, "R T"], rows: ChainRows, cutoff: int) -> LocalInteraction:
    """The terms of lis and lia of this rank's rows, from the expected PAE in Å."""
    spans = rows.spans
    R, T = pae.shape
    sums = LocalInteraction(*pae.new_zeros((2, R, spans.num_chains)))
    max_rows = max(1, CHUNK_PAIRS // T)
    for chunk in split_range(R, max_rows):
        below = cutoff - pae[chunk]
        sums.lia[chunk] = spans.sum_columns((below > 0).float())
        sums.lis[chunk] = spans.sum_columns(below.clamp_(min=0)) / cutoff
    return sums


def interaction_terms(rows: ContactRows, cutoff: int) -> list[Float[Tensor, "r T"]]:
    """The terms of `ContactInteraction`, in the order of its fields."""
    below = cutoff - rows.pae
    return [rows.near * below.clamp(min=0) / cutoff, rows.near * (below > 0)]
