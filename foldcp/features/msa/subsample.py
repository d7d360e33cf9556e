"""Random subsampling of MSA rows, drawn again for each pass of the trunk."""

from __future__ import annotations

import torch


class MsaSubsample:
    """The rows of the MSA that a pass uses: all, or `max_rows` drawn at random, as `boltz predict
    --subsample_msa` does. The draw depends on the seed and the pass alone.
    """

    def __init__(self, num_rows: int, max_rows: int, seed: int) -> None:
        """`max_rows` = 0 uses all `num_rows` rows."""
        self.num_rows = num_rows
        self.max_rows = max_rows
        self.seed = seed

    def __call__(self, index: int) -> list[int] | None:
        """The rows of pass `index`; None for all."""
        if not self.max_rows or self.num_rows <= self.max_rows:
            return None
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        return torch.randperm(self.num_rows, generator=generator)[: self.max_rows].tolist()
