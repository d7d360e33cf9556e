"""Chunks: an array worked through a few rows at a time, within a memory budget."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.distributed.pipelining import split_range
from foldcp.model.layers.offload import available_bytes

CPU_BYTES = 64 << 20
GPU_BYTES = 1 << 30  # until the budget is sized by the free memory
MIN_GPU_BYTES = 256 << 20
MAX_GPU_BYTES = 8 << 30
FREE_FRACTION = 8  # one part of so many of the free memory


class ChunkBudget:
    """Memory that a layer may take for what it computes between reading its input and writing its
    output.

    One object for all layers of a network. `fixed_bytes` is what the user set; with 0 the budget is
    64 MiB on a CPU, and on a GPU a share of the memory that is free when `resize` is called.
    """

    def __init__(self, fixed_bytes: int = 0) -> None:
        self.fixed_bytes = fixed_bytes
        self.gpu_bytes = GPU_BYTES

    def max_bytes(self, device: torch.device) -> int:
        """Bytes that the intermediates of a chunk may take."""
        if self.fixed_bytes:
            return self.fixed_bytes
        return self.gpu_bytes if device.type == "cuda" else CPU_BYTES

    def at_most(self, num_bytes: int, device: torch.device) -> ChunkBudget:
        """A budget of no more than `num_bytes`, or than 256 MiB if these are less."""
        return ChunkBudget(min(self.max_bytes(device), max(num_bytes, MIN_GPU_BYTES)))

    def resize(self, device: torch.device, cp: ContextParallel) -> None:
        """Size the chunks of what comes next by the memory that is free now, on the rank that has
        least. Collective.
        """
        if device.type == "cuda" and not self.fixed_bytes:
            free = cp.all_reduce_min(available_bytes(device), device)
            self.gpu_bytes = min(max(free // FREE_FRACTION, MIN_GPU_BYTES), MAX_GPU_BYTES)

    def rows_per_chunk(self, bytes_per_row: int, device: torch.device) -> int:
        """The number of rows that fit, with intermediates of `bytes_per_row`; at least one."""
        return max(1, self.max_bytes(device) // max(1, bytes_per_row))

    def chunks(self, num_rows: int, bytes_per_row: int, device: torch.device) -> list[slice]:
        """Slices that cut the rows into chunks that fit."""
        return split_range(num_rows, self.rows_per_chunk(bytes_per_row, device))


def map_rows_(
    x: Float[Tensor, "I *S"],
    new_rows: Callable[[slice], Tensor],
    bytes_per_row: int,
    budget: ChunkBudget,
) -> Float[Tensor, "I *S"]:
    """x with every chunk of rows replaced by `new_rows(rows)`, which works in place when no
    gradient is wanted.
    """
    out = torch.empty_like(x) if torch.is_grad_enabled() else x
    for rows in budget.chunks(len(x), bytes_per_row, x.device):
        new = new_rows(rows)
        if out is not x:
            out[rows] = new
    return out


def add_rows_(
    x: Float[Tensor, "I *S"],
    update: Callable[[slice], Tensor],
    bytes_per_row: int,
    budget: ChunkBudget,
) -> Float[Tensor, "I *S"]:
    """x + update(rows) for every chunk of rows; in place when no gradient is wanted."""
    out = torch.empty_like(x) if torch.is_grad_enabled() else x
    for rows in budget.chunks(len(x), bytes_per_row, x.device):
        out[rows] = x[rows] + update(rows)
    return out
