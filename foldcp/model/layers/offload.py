"""Memory that is free on a device, and copies of large arrays in host memory."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.distributed.pipelining import split_range

# A copy of the pair representation above this is kept in host memory: moving it costs well under a
# hundredth of the time that so many tokens take anyway.
MIN_OFFLOAD_BYTES = 4 << 30

# It is kept in blocks of this size: page-locked memory is handed out in powers of two.
HOST_BLOCK_BYTES = 1 << 30


# (rows of z, a copy of them) for all rows
Copy = list[tuple[slice, Float[Tensor, "R N C"]]]


def available_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated; on a CPU this is unknown, and no limit is assumed."""
    if device.type != "cuda":
        return 1 << 62
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def goes_to_host(z: Float[Tensor, "I N C"]) -> bool:
    """Whether z is so large that its copies are kept in host memory."""
    return z.is_cuda and z.nbytes >= MIN_OFFLOAD_BYTES


def offload(z: Float[Tensor, "I N C"], max_rows: int) -> Copy:
    """A copy of z for later, `max_rows` at a time, or in host memory if z is large."""
    if not goes_to_host(z):
        copy = z.clone()
        return [(rows, copy[rows]) for rows in split_range(len(z), max_rows)]
    blocks = []
    rows_per_block = HOST_BLOCK_BYTES // z[0].nbytes
    for rows in split_range(len(z), rows_per_block):
        block = torch.empty(z[rows].shape, dtype=z.dtype, pin_memory=True)
        blocks.append((rows, block.copy_(z[rows])))
    return blocks


def restore(z: Float[Tensor, "I N C"], copy: Copy) -> None:
    """Make z what it was when it was copied."""
    for rows, block in copy:
        z[rows] = block
