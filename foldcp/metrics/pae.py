"""Expected predicted aligned error (PAE) of pairs of chains, in Å."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from foldcp.metrics.chains import ChainRows
from foldcp.metrics.reductions import RowValues

BIN_CENTERS = 0.5 * np.arange(64) + 0.25  # Å; PAE and PDE have 64 bins of 0.5 Å


@dataclass(frozen=True)
class PaeSums(RowValues):
    """Sums of expected PAE over the tokens of each chain for each valid frame, else 0."""

    pae: Float[Tensor, "R C"]
    num_frames: Float[Tensor, "R C"]  # 1 for a valid frame


def pae_sums(pae: Float[Tensor, "R T"], valid: Bool[Tensor, " R"], rows: ChainRows) -> PaeSums:
    """The terms of pae_mean, from the expected PAE in Å."""
    sums = rows.spans.sum_columns(pae)
    num_frames = valid[:, None].float().expand_as(sums)
    return PaeSums(sums * num_frames, num_frames)
