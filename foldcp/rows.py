"""Rows: one rank's share of the N x N arrays, and the only place where ranks talk to each other (by
`carriers`).

An array `z[N, N, C]` is cut by rows over the P ranks of a group: rank r holds `z[I, N, C]`, I = N /
P, the rows r*I .. (r+1)*I - 1. N is padded to a multiple of P beforehand, with a mask. At P = 1
every verb is the identity (`transpose` is the plain transpose), so layers are written once, without
asking for P.

Gradients: the gradient of a tensor that is whole on every rank is a share on each of them, and the
shares add up to the true gradient. Hence each rank differentiates the loss of its own rows, and the
gradients of the weights are summed over the ranks at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from foldcp.carriers import Carrier, Messages, as_bytes, carrier

# Named differently up to and from PyTorch 2.12.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

# `transpose` exchanges square tiles; those on their way and those that land meanwhile take so many
# bytes in all.
TILE_BYTES = 256 << 20

# `by_columns` cuts a rank's columns into so many pieces, as nothing hides the arrival of the first
# one and the return of the last; but not into smaller ones than this, which take longer to launch
# than to compute.
PIECES = 8
PIECE_BYTES = 64 << 20

T = TypeVar("T")
ByRank = list[list[Tensor]]  # arrays for every rank, or from it
Visit = tuple[slice, int, list[Tensor]]

# Rows in parts, which joined along the second dimension are N long; updated in place without
# gradients.
Update = Callable[[list[Shaped[Tensor, "R J *C"]]], list[Shaped[Tensor, "R J *C"]]]


def cuts(num: int, most: int) -> list[slice]:
    """Slices of `num` rows, `most` of them (at least one) at a time."""
    step = max(1, most)
    return [slice(start, min(start + step, num)) for start in range(0, num, step)]


class Rows:
    """This rank's place among the P ranks that hold one complex."""

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        group: dist.ProcessGroup | None = None,
        carrier: Carrier | None = None,
    ) -> None:
        assert 0 <= rank < size and (size == 1 or group is not None)
        self.rank = rank
        self.size = size
        self.group = group
        self.carrier = carrier or Messages(rank, size, group)

    @classmethod
    def join(
        cls,
        rank: int,
        size: int,
        init_method: str,
        device: torch.device,
        timeout: float = 1800.0,
    ) -> Rows:
        """Meet the other ranks at `init_method` (`file://..`, `tcp://host:port` or `env://`), over
        NCCL on GPUs and gloo on CPUs. A group of one needs nobody. Raises torch's DistNetworkError
        or DistStoreError when the others do not come within `timeout` seconds.
        """
        if size == 1:
            return cls()
        cuda = device.type == "cuda"
        options = None
        if cuda:
            # What travels under a computation must not queue behind its thousands of blocks for a
            # place to run.
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
        group = dist.group.WORLD
        assert group is not None
        return cls(rank, size, group, carrier(rank, size, group, device))

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
        """The rows of z^T. Without gradients `z`'s memory is reused and `z` must not be read again;
        writing to the result and transposing back updates it in place.
        """
        if self.size == 1:
            return z.transpose(0, 1)
        if torch.is_grad_enabled() and z.requires_grad:
            return _SelfAdjoint.apply(z, _transposed, self)
        return _transpose_(z, self)

    def by_columns(
        self, z: Shaped[Tensor, "I N *C"], update: Update, most: int
    ) -> Shaped[Tensor, "I N *C"]:
        """z with every row of z^T replaced by its `update`, at most `most` of them at a time, in
        the parts that ranks hold. Without gradients z is updated in place, as the parts given to
        `update` are: one chunk arrives and another returns while a third is updated. All ranks give
        the same `most`.
        """
        if self.size > 1 and not torch.is_grad_enabled():
            return _by_columns_(z, update, most, self)
        turned = self.transpose(z)
        out = torch.empty_like(turned) if torch.is_grad_enabled() else turned
        for rows in cuts(len(turned), most):
            (new,) = update([turned[rows]])
            if out is not turned:
                out[rows] = new
        return self.transpose(out)

    def stream(
        self, b: Shaped[Tensor, "D *S"]
    ) -> Iterator[tuple[slice, int, Shaped[Tensor, "R *S"]]]:
        """(lot, rank, that lot of its b) for every lot of D indices and every rank, this rank
        first; the next lot travels while one is used.
        """
        if self.size == 1:
            yield slice(0, len(b)), 0, b
        elif torch.is_grad_enabled() and b.requires_grad:
            whole = self.gather(b[None])
            yield from ((slice(0, len(b)), p, whole[p]) for p in self._ring())
        else:
            yield from (
                (lot, p, x)
                for lot, p, (x,) in _visits(self, len(b), b[0].nbytes, lambda lot, _: [b[lot]])
            )

    def across(
        self, a: Shaped[Tensor, "D I N"], b: Shaped[Tensor, "D *S"]
    ) -> Iterator[tuple[slice, int, Shaped[Tensor, "R I I"], Shaped[Tensor, "R *S"]]]:
        """The same with a: (lot, rank p, its rows and this rank's columns of a, its b)."""
        if self.size == 1:
            yield slice(0, len(b)), 0, a, b
            return
        parts = a.unflatten(2, (self.size, -1)).permute(2, 0, 1, 3)
        if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
            parts = _SelfAdjoint.apply(parts, _exchanged, self)
            yield from ((lot, p, parts[p, lot], x) for lot, p, x in self.stream(b))
        else:
            visits = _visits(
                self,
                len(a),
                parts[0, 0].nbytes + b[0].nbytes,
                lambda lot, p: [parts[p, lot], b[lot]],
            )
            yield from ((lot, p, part, x) for lot, p, (part, x) in visits)

    def sum(self, x: Shaped[Tensor, "*S"]) -> Shaped[Tensor, "*S"]:
        """The sum over ranks, on every rank."""
        return x if self.size == 1 else _SelfAdjoint.apply(x, _sum, self)

    def least(self, number: int, device: torch.device) -> int:
        """The smallest of the ranks' numbers: what they cut an array by must be the same. Waits
        for the device.
        """
        if self.size == 1:
            return number
        least = torch.tensor(number, device=device)
        dist.all_reduce(least, dist.ReduceOp.MIN, group=self.group)
        return int(least)

    def _ring(self) -> list[int]:
        return [(self.rank + step) % self.size for step in range(self.size)]


def _gather(x: Tensor, rows: Rows) -> Tensor:
    x = x.contiguous()
    whole = x.new_empty((rows.size * x.shape[0], *x.shape[1:]))
    _all_gather(as_bytes(whole), as_bytes(x), group=rows.group)
    return whole


def _sum(x: Tensor, rows: Rows) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=rows.group)
    return total


class _Flight:
    """The arrays parts[p] on their way to each rank p, while something else is computed."""

    def __init__(self, parts: ByRank, rows: Rows) -> None:
        ahead, back = (
            [(rows.rank + way * s) % rows.size for s in range(1, rows.size)] for way in (1, -1)
        )
        self.received = list(
            parts
        )  # from each rank, once they have landed; its own are there already
        for p in back:
            self.received[p] = [
                torch.empty_like(x, memory_format=torch.contiguous_format) for x in parts[p]
            ]
        self.land = rows.carrier.start([parts[p] for p in ahead], [self.received[p] for p in back])

    def put(self, places: ByRank) -> None:
        """Land, and write what has come where it belongs; once."""
        self.land()
        for to, came in zip(places, self.received, strict=True):
            for place, x in zip(to, came, strict=True):
                place.copy_(x)
        self.received.clear()  # while the next ones are made


def _one_ahead(things: Iterable[T]) -> Iterator[T]:
    """Each of them, once the next has been made, too."""
    made: list[T] = []
    for thing in things:
        yield from made
        made = [thing]
    yield from made


def _visits(
    rows: Rows, num: int, cell: int, given: Callable[[slice, int], list[Tensor]]
) -> Iterator[Visit]:
    """(lot, rank p, what p has of it for this rank) for lots of `num` indices, of each of which a
    rank gives another `cell` bytes: `given(lot, p)`. The next lot travels while one is used.
    """
    lots = cuts(num, rows.carrier.room // (cell * (rows.size - 1)))
    flights = (_Flight([given(lot, p) for p in range(rows.size)], rows) for lot in lots)
    for lot, flight in zip(lots, _one_ahead(flights), strict=True):
        for p in rows._ring():
            yield lot, p, flight.received[p]
            if p == rows.rank:
                flight.land()
        flight.received.clear()  # while the next but one is made


def _exchanged(parts: Shaped[Tensor, "P *S"], rows: Rows) -> Shaped[Tensor, "P *S"]:
    """Part p to rank p; part p of what is returned comes from there."""
    flight = _Flight([[part] for part in parts], rows)
    flight.land()
    return torch.stack([part for (part,) in flight.received])


def _cells(x: Shaped[Tensor, "A B *C"]) -> Shaped[Tensor, "A B W"]:
    """The same memory in the widest words that fit, because copies that rearrange go word by
    word.
    """
    x = x.reshape(*x.shape[:2], -1)
    for word in (torch.complex128, torch.int64, torch.int32, torch.int16):
        size = word.itemsize // x.element_size()
        if size and x.shape[2] % size == 0 and x.storage_offset() % size == 0:
            return x.view(word)
    return x


def _blocks(z: Shaped[Tensor, "I N *C"], rows: Rows) -> Shaped[Tensor, "P I J W"]:
    """The same memory, by the ranks whose rows z's columns are."""
    assert z.is_contiguous() and z.shape[1] == rows.size * z.shape[0]
    return _cells(z).view(z.shape[0], rows.size, z.shape[0], -1).transpose(0, 1)


def _transpose_(z: Tensor, rows: Rows) -> Tensor:
    """Exchange tile (a, b) of every block with the owner's tile (b, a), in place; two pairs of
    tiles take turns.
    """
    blocks = _blocks(z, rows)
    I = len(z)
    most = min(TILE_BYTES // 8, rows.carrier.room // 2) / (z[0, 0].nbytes * rows.size)
    tiles = cuts(I, min(I, int(most**0.5)))
    pairs = [
        [(a, b)] if a == b else [(a, b), (b, a)] for n, a in enumerate(tiles) for b in tiles[n:]
    ]

    def sent(pair: list[tuple[slice, slice]]) -> tuple[_Flight, ByRank]:
        leaving = [[block[i, j] for i, j in pair] for block in blocks]
        leaving[rows.rank] = [x.clone() for x in leaving[rows.rank]]  # each other's places
        return _Flight(leaving, rows), [
            [block[j, i].transpose(0, 1) for i, j in pair] for block in blocks
        ]

    for flight, places in _one_ahead(map(sent, pairs)):
        flight.put(places)
    return z


def _transposed(z: Tensor, rows: Rows) -> Tensor:
    return _transpose_(z.clone(memory_format=torch.contiguous_format), rows)


def _by_columns_(z: Tensor, update: Update, most: int, rows: Rows) -> Tensor:
    """What is sent in one turn is updated in the next and put back in the third; this rank's own
    part never moves.
    """
    turned = _blocks(z, rows).transpose(1, 2)
    I = len(z)
    P = rows.size
    wanted = max(-(-I // PIECES), PIECE_BYTES // z[0].nbytes)
    pieces = cuts(I, min(most, wanted, rows.carrier.room // ((P - 1) * I * z[0, 0].nbytes)))

    def returned() -> Iterator[tuple[_Flight, ByRank]]:
        arrivals = (_Flight([[part[piece]] for part in turned], rows) for piece in pieces)
        for piece, flight in zip(pieces, _one_ahead(arrivals), strict=True):
            flight.land()
            parts = [x.view(z.dtype).view(*x.shape[:2], *z.shape[2:]) for (x,) in flight.received]
            new = [[_cells(x)] for x in update(parts)]
            places = [[part[piece]] for part in turned]
            new[rows.rank], places[rows.rank] = [], []
            yield _Flight(new, rows), places

    for flight, places in _one_ahead(returned()):
        flight.put(places)
    return z


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        return _gather(x, rows)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.rows.mine(_sum(grad, ctx.rows)), None


class _SelfAdjoint(torch.autograd.Function):
    """What moves the gradients as it moves the arrays."""

    @staticmethod
    def forward(ctx, x: Tensor, move: Callable[[Tensor, Rows], Tensor], rows: Rows) -> Tensor:
        ctx.move = move
        ctx.rows = rows
        return move(x, rows)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.move(grad, ctx.rows), None, None
