"""Expected predicted distance error (PDE) of pairs of chains, in Å (AlphaFold 3,
`chain_pair_pde`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.metrics.chains import ChainRows
from foldcp.metrics.reductions import RowValues


@dataclass(frozen=True)
class PdeSums(RowValues):
    """Sums over the tokens of each chain."""

    pde: Float[Tensor, "R C"]


@dataclass(frozen=True)
class PdeMinima(RowValues):
    """Minima over the tokens of each chain."""

    pde: Float[Tensor, "R C"]


class PairPde:
    """PDE of this rank's rows with each chain."""

    def __init__(self, rows: ChainRows, device: torch.device) -> None:
        self.rows = rows
        shape = (rows.num_rows, rows.spans.num_chains)
        self.sums = PdeSums(torch.zeros(shape, dtype=torch.float32, device=device))
        self.minima = PdeMinima(torch.zeros(shape, dtype=torch.float32, device=device))

    def update(self, chunk: slice, pde: Float[Tensor, "r T"]) -> None:
        """Add the expected PDE of a chunk of this rank's rows."""
        self.sums.pde[chunk] = self.rows.spans.sum_columns(pde)
        self.minima.pde[chunk] = self.rows.spans.min_columns(pde)
