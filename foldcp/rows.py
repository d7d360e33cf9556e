"""Rows: one rank's share of the N x N arrays, and the only place where ranks talk to each other.

An array `z[N, N, C]` is cut by rows over the P ranks of a group: rank r holds `z[I, N, C]`, I = N / P, the rows
r*I .. (r+1)*I - 1. N is padded to a multiple of P beforehand, with a mask. At P = 1 every verb is the identity
(`transpose` is the plain transpose), so layers are written once, without asking for P.

Gradients: the gradient of a tensor that is whole on every rank is a share on each of them, and the shares add up
to the true gradient. Hence each rank differentiates the loss of its own rows, and the gradients of the weights are
summed over the ranks at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

# Named differently up to and from PyTorch 2.12.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

# `transpose` exchanges square tiles; those on their way and those that land meanwhile take so many bytes in all.
TILE_BYTES = 256 << 20

# `by_columns` cuts a rank's columns at least so often: nothing hides the arrival of the first chunk and the return of
# the last one.
PIECES = 8

Update = Callable[[Shaped[Tensor, "R N *C"]], Shaped[Tensor, "R N *C"]]


def cuts(num: int, most: int) -> list[slice]:
    """Slices of `num` rows, `most` of them (at least one) at a time."""
    step = max(1, most)
    return [slice(start, min(start + step, num)) for start in range(0, num, step)]


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
        options = None
        if cuda:
            # What travels under a computation must not queue behind its thousands of blocks for a place to run.
            options = dist.ProcessGroupNCCL.Options(is_high_priority_stream=True)
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            init_method=init_method,
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=timeout),
            device_id=device if cuda else None,
            pg_options=options,
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

    def by_columns(self, z: Shaped[Tensor, "I N *C"], update: Update, most: int) -> Shaped[Tensor, "I N *C"]:
        """z with every row of z^T replaced by its `update`, at most `most` of them at a time. Without gradients z is
        updated in place, as the rows given to `update` are: one chunk arrives and another returns while a third is
        updated. All ranks give the same `most`."""
        if self.size > 1 and not torch.is_grad_enabled():
            return _by_columns_(z, update, most, self)
        turned = self.transpose(z)
        out = torch.empty_like(turned) if torch.is_grad_enabled() else turned
        for rows in cuts(len(turned), most):
            new = update(turned[rows])
            if out is not turned:
                out[rows] = new
        return self.transpose(out)

    def stream(self, b: Shaped[Tensor, "..."]) -> Iterator[tuple[int, Shaped[Tensor, "..."]]]:
        """(rank, its block) for every rank, this rank first; the next block travels while this one is used."""
        if self.size > 1 and torch.is_grad_enabled() and b.requires_grad:
            whole = self.gather(b[None])
            yield from ((p, whole[p]) for p in self._ring())
        else:
            yield from _stream(b, self)

    def across(self, x: Shaped[Tensor, "D I N"]) -> Iterator[tuple[int, Shaped[Tensor, "D I I"]]]:
        """(rank p, p's rows and this rank's columns of x) for every rank, this rank first. Without gradients x's
        memory is reused."""
        parts = x.unflatten(2, (self.size, -1)).permute(2, 0, 1, 3)
        if self.size > 1:
            wants_grad = torch.is_grad_enabled() and x.requires_grad
            parts = _Exchange.apply(parts, self) if wants_grad else _exchange_(parts, self)
        yield from ((p, parts[p]) for p in self._ring())

    def sum(self, x: Shaped[Tensor, "*S"]) -> Shaped[Tensor, "*S"]:
        """The sum over ranks, on every rank."""
        return x if self.size == 1 else _Sum.apply(x, self)

    def least(self, number: int, device: torch.device) -> int:
        """The smallest of the ranks' numbers: what they cut an array by must be the same. Waits for the device."""
        if self.size == 1:
            return number
        least = torch.tensor(number, device=device)
        dist.all_reduce(least, dist.ReduceOp.MIN, group=self.group)
        return int(least)

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


def _cells(x: Shaped[Tensor, "A B *C"]) -> Shaped[Tensor, "A B W"]:
    """The same memory in the widest words that fit, because copies that rearrange go word by word."""
    x = x.reshape(*x.shape[:2], -1)
    for word in (torch.complex128, torch.int64, torch.int32, torch.int16):
        size = word.itemsize // x.element_size()
        if size and x.shape[2] % size == 0 and x.storage_offset() % size == 0:
            return x.view(word)
    return x


class _Flight:
    """Arrays on their way together, part p of each to rank p; they travel beside what is computed until they land."""

    def __init__(self, arrays: list[Tensor], rows: Rows) -> None:
        self.sent: list[Tensor] = []  # to be kept, as is what arrives, until they have landed
        self.received = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in arrays]
        steps: list[dist.P2POp] = []
        for x, received in zip(arrays, self.received, strict=True):
            for p in rows._ring()[1:]:
                self.sent.append(x[p].contiguous())
                steps.append(dist.P2POp(dist.isend, _bytes(self.sent[-1]), p, rows.group))
                steps.append(dist.P2POp(dist.irecv, _bytes(received[p]), p, rows.group))
            received[rows.rank].copy_(x[rows.rank])
        self.works = dist.batch_isend_irecv(steps)

    def land(self) -> list[Tensor]:
        """Part p of each came from rank p. Lets go of what was sent; to be called once."""
        for work in self.works:
            work.wait()
        received = self.received
        del self.sent, self.received, self.works
        return received


Places = list[Tensor]  # where what a flight brings belongs


def _put(flying: list[tuple[Places, _Flight]]) -> None:
    """Write what comes into its place."""
    for places, flight in flying:
        for place, came in zip(places, flight.land(), strict=True):
            place.copy_(came)


def _in_turns(moves: Iterable[tuple[list[Tensor], Places]], rows: Rows) -> None:
    """Send the arrays of each move, and put what comes for them into its places while the next ones travel."""
    flying: list[tuple[Places, _Flight]] = []
    for leaving, places in moves:
        flight = _Flight(leaving, rows)
        _put(flying)
        flying = [(places, flight)]
    _put(flying)


def _transpose_(z: Tensor, rows: Rows) -> Tensor:
    """Exchange tile (a, b) of every block with the owner's tile (b, a), in place; two pairs of tiles take turns."""
    assert z.is_contiguous() and z.shape[1] == rows.size * z.shape[0]
    I, P = z.shape[0], rows.size
    blocks = _cells(z).view(I, P, I, -1)
    cell = z[0, 0].numel() * z.element_size()
    tiles = cuts(I, max(1, min(I, int((TILE_BYTES / (8 * P * cell)) ** 0.5))))
    pairs = [[(a, b)] if a == b else [(a, b), (b, a)] for n, a in enumerate(tiles) for b in tiles[n:]]
    moves = (
        ([blocks[i, :, j].transpose(0, 1) for i, j in pair], [blocks[j, :, i].permute(1, 2, 0, 3) for i, j in pair])
        for pair in pairs
    )
    _in_turns(moves, rows)
    return z


def _exchange_(parts: Shaped[Tensor, "P D *S"], rows: Rows) -> Shaped[Tensor, "P D *S"]:
    """Part p goes to rank p, and what p sends takes its place; two lots of D take turns."""
    lots = [[parts[:, lot]] for lot in cuts(parts.shape[1], TILE_BYTES // (4 * parts[:, 0].nbytes))]
    _in_turns(zip(lots, lots, strict=True), rows)
    return parts


def _by_columns_(z: Tensor, update: Update, most: int, rows: Rows) -> Tensor:
    """What is packed and sent in one turn is updated in the next and put back in the third."""
    assert z.is_contiguous() and z.shape[1] == rows.size * z.shape[0]
    I, P = z.shape[0], rows.size
    blocks = _cells(z).view(I, P, I, -1)
    pieces = [blocks[:, :, cut] for cut in cuts(I, min(most, -(-I // PIECES)))]

    def sent(pieces: list[Tensor]) -> list[_Flight]:
        return [_Flight([piece.permute(1, 2, 0, 3)], rows) for piece in pieces]

    def updated(arriving: _Flight) -> _Flight:
        (parts,) = arriving.land()  # [P, columns, I, W]
        chunk = parts.transpose(0, 1).flatten(1, 2).view(z.dtype).view(-1, *z.shape[1:])
        return _Flight([_cells(update(chunk)).unflatten(1, (P, I)).transpose(0, 1)], rows)

    arriving = sent(pieces[:1])
    returning: list[tuple[Places, _Flight]] = []
    for n, piece in enumerate(pieces):
        arriving += sent(pieces[n + 1 : n + 2])
        leaving = ([piece.permute(1, 2, 0, 3)], updated(arriving.pop(0)))
        _put(returning)
        returning = [leaving]
    _put(returning)
    return z


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
        return _transpose_(z.clone(memory_format=torch.contiguous_format), rows)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _transpose_(grad.clone(memory_format=torch.contiguous_format), ctx.rows), None


class _Exchange(torch.autograd.Function):
    """Part p of an array to rank p."""

    @staticmethod
    def forward(ctx, parts: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        return _Flight([parts], rows).land()[0]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _Flight([grad], ctx.rows).land()[0], None


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
