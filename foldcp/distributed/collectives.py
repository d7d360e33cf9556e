"""Blocking collectives and their gradients: all-gather, all-reduce, broadcast."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from foldcp.distributed.transport import as_bytes

T = TypeVar("T")

# Named differently up to and from PyTorch 2.12.
all_gather_into = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def all_reduce_min(number: int, device: torch.device, group: dist.ProcessGroup | None) -> int:
    """The smallest of the ranks' numbers; waits for the device."""
    smallest = torch.tensor(number, device=device)
    dist.all_reduce(smallest, dist.ReduceOp.MIN, group=group)
    return int(smallest)


def broadcast(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """A copy of the first rank's x."""
    received = x.clone(memory_format=torch.contiguous_format)
    dist.broadcast(received, group=group, group_src=0)
    return received


def gather_objects(x: T, size: int, group: dist.ProcessGroup | None) -> list[T]:
    """The objects of all ranks, in their order."""
    found: list[Any] = [None] * size
    dist.all_gather_object(found, x, group=group)
    return found


def _all_reduce(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


class AllReduce(torch.autograd.Function):
    """The sum over ranks; its gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        return _all_reduce(x, group)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _all_reduce(grad, ctx.group), None


class AllGather(torch.autograd.Function):
    """The ranks' tensors joined along their first dimension; its gradient is a reduce-scatter."""

    @staticmethod
    def forward(ctx, x: Tensor, rank: int, size: int, group: dist.ProcessGroup | None) -> Tensor:
        ctx.rank = rank
        ctx.size = size
        ctx.group = group
        x = x.contiguous()
        whole = x.new_empty((size * x.shape[0], *x.shape[1:]))
        all_gather_into(as_bytes(whole), as_bytes(x), group=group)
        return whole

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        total = _all_reduce(grad, ctx.group)
        return total.chunk(ctx.size)[ctx.rank], None, None, None
