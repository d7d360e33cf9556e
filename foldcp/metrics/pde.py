"""Expected predicted distance error (PDE) of the complex, weighted by contact probability, in Å."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.metrics.chains import ChainRows
from foldcp.metrics.reductions import RowValues


@dataclass(frozen=True)
class WeightedPde(RowValues):
    """Sums over the columns of each row, weighted by the contact probability."""

    pde: Float[Tensor, "*R"]  # of all pairs but (i, i)
    weight: Float[Tensor, "*R"]
    interface_pde: Float[Tensor, "*R"]  # of pairs of different chains
    interface_weight: Float[Tensor, "*R"]

    @classmethod
    def zeros(cls, num_rows: int, device: torch.device) -> WeightedPde:
        """Memory for the sums of so many rows, which `update` fills."""
        sums = torch.zeros((4, num_rows), dtype=torch.float32, device=device)
        return cls(*sums)

    def update(
        self,
        chunk: slice,
        pde: Float[Tensor, "r T"],
        contact_probability: Float[Tensor, "r T"],
        rows: ChainRows,
    ) -> None:
        """Add the expected PDE of a chunk of this rank's rows."""
        weight = contact_probability.to(torch.float32, copy=True)
        weight.diagonal(rows.first + chunk.start).zero_()
        self.pde[chunk] = (pde * weight).sum(1)
        self.weight[chunk] = weight.sum(1)
        weight.mul_(rows.column_chain != rows.row_chain[chunk, None])
        self.interface_pde[chunk] = (pde * weight).sum(1)
        self.interface_weight[chunk] = weight.sum(1)
