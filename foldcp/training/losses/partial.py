"""Sums over the rows of a rank, a chunk at a time, whose intermediates are computed again for the
gradient.

A loss is a sum over the ranks. Each rank differentiates its own part (`ContextParallel`), so a loss
is returned as that part; `total` adds up the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from foldcp.distributed.context_parallel import ContextParallel


def own_rows(cp: ContextParallel, length: int) -> slice:
    """This rank's part of what is whole on every rank, and need not divide by their number."""
    return slice(length * cp.rank // cp.size, length * (cp.rank + 1) // cp.size)


def chunked_sum(
    of_rows: Callable[[slice], Float[Tensor, "*S"]], chunks: Iterable[slice], zero: Tensor
) -> Float[Tensor, "*S"]:
    """`zero` + of_rows(rows) of all chunks. Without communication in `of_rows`."""
    total = zero
    for rows in chunks:
        total = total + checkpoint(of_rows, rows, use_reentrant=False, preserve_rng_state=False)
    return total


def total(cp: ContextParallel, part: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """The sum of the ranks' parts, without gradients."""
    with torch.no_grad():
        return cp.all_reduce(part.detach())


def precise(x: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """x in fp32, or better: losses are not computed in bf16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
