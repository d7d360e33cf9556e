"""Expected predicted distance error (PDE) of pairs of chains, in Å (AlphaFold 3,
`chain_pair_pde`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.metrics.chains import ChainRows


@dataclass(frozen=True, eq=False)
class PairPde:
    """PDE of this rank's rows over the tokens of each chain."""

    sums: Float[Tensor, "R C"]
    minima: Float[Tensor, "R C"]

    @classmethod
    def zeros(cls, rows: ChainRows, device: torch.device) -> PairPde:
        """Memory for these rows, which `update` fills."""
        shape = (2, rows.num_rows, rows.spans.num_chains)
        return cls(*torch.zeros(shape, dtype=torch.float32, device=device))

    def update(self, chunk: slice, pde: Float[Tensor, "r T"], rows: ChainRows) -> None:
        """Add the expected PDE of a chunk of this rank's rows."""
        self.sums[chunk] = rows.spans.sum_columns(pde)
        self.minima[chunk] = rows.spans.min_columns(pde)
