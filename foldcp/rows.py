"""Rows: one rank's share of the N x N arrays, and the only place where ranks talk to each other.

An array `z[N, N, C]` is cut by rows over the P ranks of a group: rank r holds `z[I, N, C]`, I = N / P, the rows
r*I .. (r+1)*I - 1. N is padded to a multiple of P beforehand, with a mask. At P = 1 every verb is the identity
(`transpose` is the plain transpose), so layers are written once, without asking for P.

Gradients: the gradient of a tensor that is whole on every rank is a share on each of them, and the shares add up
to the true gradient. Hence each rank differentiates the loss of its own rows, and the gradients of the weights are
summed over the ranks at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

# Named differently up to and from PyTorch 2.12.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

# `transpose` exchanges square tiles; two of them per peer are in flight, this many bytes at a time in all.
TILE_BYTES = 256 << 20


class Rows:
    """This rank's place among the P ranks that hold one complex."""

    def __init__(self, rank: int = 0, size: int = 1, group: dist.ProcessGroup | None = None) -> None:
        assert 0 <= rank < size and (size == 1 or group is not None)
        self.rank, self.size, self.group = rank, size, group

    @classmethod
    def join(cls, rank: int, size: int, init_method: str, device: torch.device, timeout: float = 1800.0) -> Rows:
        """Meet the other ranks at `init_method` (`file://..`, `tcp://host:port` or `env://`), over NCCL on GPUs and
        gloo on CPUs. A group of one needs nobody. Raises torch's DistNetworkError or DistStoreError when the
        others do not come within `timeout` seconds."""
        if size == 1:
            return cls()
        cuda = device.type == "cuda"
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            init_method=init_method,
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=timeout),
            device_id=device if cuda else None,
        )
        return cls(rank, size, dist.group.WORLD)

    def leave(self) -> None:
        """Part from the group; all ranks do so together."""
        if self.size > 1:
            dist.destroy_process_group()

    def start(self, N: int) -> int:
        """Index of this rank's first row among N."""
        assert N % self.size == 0, f"{N} rows do not divide by {self.size} ranks"
        return self.rank * (N // self.size)

    def mine(self, x: Shaped[Tensor, "..."], dim: int = 0) -> Shaped[Tensor, "..."]:
        """This rank's slice of a tensor that is whole on every rank; a view."""
        N = x.shape[dim]
        return x.narrow(dim, self.start(N), N // self.size)

    def gather(self, x: Shaped[Tensor, "..."], dim: int = 0) -> Shaped[Tensor, "..."]:
        """The whole tensor on every rank, from slices along `dim`."""
        if self.size == 1:
            return x
        return _Gather.apply(x.movedim(dim, 0), self).movedim(0, dim)

    def transpose(self, z: Shaped[Tensor, "I N *C"]) -> Shaped[Tensor, "I N *C"]:
        """The rows of z^T. Without gradients `z`'s memory is reused and `z` must not be read again; writing to
        the result and transposing back updates it in place."""
        if self.size == 1:
            return z.transpose(0, 1)
        if torch.is_grad_enabled() and z.requires_grad:
            return _Transpose.apply(z, self)
        return _transpose_(z, self)

    def stream(self, b: Shaped[Tensor, "..."]) -> Iterator[tuple[int, Shaped[Tensor, "..."]]]:
        """(rank, its block) for every rank, this rank first; the next block travels while this one is used."""
        if self.size > 1 and torch.is_grad_enabled() and b.requires_grad:
            whole = self.gather(b[None])
            yield from ((p, whole[p]) for p in self._ring())
        else:
            yield from _stream(b, self)

    def sum(self, x: Shaped[Tensor, "*S"]) -> Shaped[Tensor, "*S"]:
        """The sum over ranks, on every rank."""
        return x if self.size == 1 else _Sum.apply(x, self)

    def _ring(self) -> list[int]:
        return [(self.rank + step) % self.size for step in range(self.size)]


def _bytes(x: Tensor) -> Tensor:
    """Memory of a contiguous tensor: what travels has no type, so every backend moves every type."""
    return x.reshape(-1).view(torch.uint8)


def _gather(x: Tensor, rows: Rows) -> Tensor:
    x = x.contiguous()
    whole = x.new_empty((rows.size * x.shape[0], *x.shape[1:]))
    _all_gather(_bytes(whole), _bytes(x), group=rows.group)
    return whole


def _transpose_(z: Tensor, rows: Rows) -> Tensor:
    """Exchange tile (a, b) of every block with the owner's tile (b, a), in place."""
    assert z.is_contiguous() and z.shape[1] == rows.size * z.shape[0]
    I, P = z.shape[0], rows.size
    blocks = z.view(I, P, I, *z.shape[2:])
    cell = z[0, 0].numel() * z.element_size()
    tile = max(1, min(I, int((TILE_BYTES / (4 * P * cell)) ** 0.5)))
    cuts = [slice(i, min(i + tile, I)) for i in range(0, I, tile)]
    for n, a in enumerate(cuts):
        for b in cuts[n:]:
            upper = _exchange(blocks[a, :, b], rows)
            if a != b:
                blocks[a, :, b] = _exchange(blocks[b, :, a], rows)
            blocks[b, :, a] = upper
    return z


def _exchange(tiles: Shaped[Tensor, "a P b *C"], rows: Rows) -> Shaped[Tensor, "b P a *C"]:
    """Send tile p to rank p; the received tiles, transposed."""
    sent = tiles.transpose(0, 1).contiguous()
    received = torch.empty_like(sent)
    dist.all_to_all_single(_bytes(received), _bytes(sent), group=rows.group)
    return received.permute(2, 0, 1, *range(3, received.dim()))


def _stream(b: Tensor, rows: Rows) -> Iterator[tuple[int, Tensor]]:
    """A ring: what arrives from the right neighbour is used here and goes on to the left one."""
    block = b.contiguous()
    for step, owner in enumerate(rows._ring()):
        works: list[dist.Work] = []
        arriving = block
        if step + 1 < rows.size:
            arriving = torch.empty_like(block)
            works = dist.batch_isend_irecv(
                [
                    dist.P2POp(dist.isend, _bytes(block), (rows.rank - 1) % rows.size, rows.group),
                    dist.P2POp(dist.irecv, _bytes(arriving), (rows.rank + 1) % rows.size, rows.group),
                ]
            )
        yield owner, block
        for work in works:
            work.wait()
        block = arriving


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        return _gather(x, rows)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad, group=ctx.rows.group)
        return ctx.rows.mine(grad), None


class _Transpose(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        return _transpose_(z.contiguous().clone(), rows)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _transpose_(grad.contiguous().clone(), ctx.rows), None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        total = x.contiguous().clone()
        dist.all_reduce(total, group=rows.group)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.contiguous().clone()
        dist.all_reduce(total, group=ctx.rows.group)
        return total, None
