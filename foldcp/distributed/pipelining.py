"""Pipelined communication: a transport moves the next chunk of an array while one is computed.

Every pipeline here looks one exchange ahead (`_prefetch`): exchange n + 1 is started before chunk n
is used. For `pipelined_exchange`, with chunks 0, 1, 2:

    transport   | send 0 | send 1 | send 2 |
    compute              | use 0  | use 1  | use 2 |

`transposed_rows` does the same. For `map_columns_`, where what was computed also returns to the
ranks that own it:

    transport   | fetch 0 | fetch 1 | fetch 2, return 0 | return 1 | return 2 |
    compute               |  fn 0   |       fn 1        |   fn 2   |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor

from foldcp.distributed.transport import Transport

# `transpose_` exchanges square tiles; those on their way at a time take so many bytes.
TILE_BYTES = 256 << 20

# `map_columns_` cuts a rank's columns into so many chunks, as nothing hides the arrival of the
# first and the return of the last one; but not into smaller ones than MIN_CHUNK_BYTES, which take
# longer to launch than to compute.
NUM_COLUMN_CHUNKS = 8
MIN_CHUNK_BYTES = 64 << 20

T = TypeVar("T")
TensorsByRank = list[list[Tensor]]  # for every rank, or from it

# Rows in blocks, which joined along the second dimension are N long; without gradients they may be
# updated in place.
ColumnFn = Callable[[list[Shaped[Tensor, "R J *C"]]], list[Shaped[Tensor, "R J *C"]]]


def split_range(length: int, max_length: int) -> list[slice]:
    """Slices that cover range(length), `max_length` indices (at least one) each."""
    step = max(1, max_length)
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def ring_order(transport: Transport) -> list[int]:
    """All ranks, this one first, then those that follow it."""
    return [(transport.rank + step) % transport.size for step in range(transport.size)]


class Exchange:
    """An exchange in progress: `send[p]` goes to each rank p while this rank computes."""

    def __init__(self, send: TensorsByRank, transport: Transport) -> None:
        ring = ring_order(transport)
        following = ring[1:]
        preceding = ring[:0:-1]
        # This rank's own block is there at once; the other blocks are valid after `wait`.
        self.received = list(send)
        for p in preceding:
            self.received[p] = [
                torch.empty_like(x, memory_format=torch.contiguous_format) for x in send[p]
            ]
        self.wait = transport.exchange(
            [send[p] for p in following], [self.received[p] for p in preceding]
        )

    def wait_and_copy(self, destinations: TensorsByRank) -> None:
        """Wait, copy what was received to its destinations, and free it."""
        self.wait()
        for targets, tensors in zip(destinations, self.received, strict=True):
            for target, x in zip(targets, tensors, strict=True):
                target.copy_(x)
        self.received.clear()


def _prefetch(items: Iterable[T]) -> Iterator[T]:
    """The items, each yielded once the next one has been produced."""
    started: list[T] = []
    for item in items:
        yield from started
        started = [item]
    yield from started


def pipelined_exchange(
    transport: Transport,
    length: int,
    index_bytes: int,
    produce: Callable[[slice, int], list[Tensor]],
) -> Iterator[tuple[slice, int, list[Tensor]]]:
    """(chunk of range(length), rank p, tensors received from p) for every chunk and rank.

    `produce(chunk, p)` returns what this rank sends to p; each index of a chunk sends `index_bytes`
    to every other rank. Chunk n + 1 is started before chunk n is used.
    """
    peers = transport.size - 1
    max_indices = transport.buffer_bytes // (index_bytes * peers)
    chunks = split_range(length, max_indices)

    def start(chunk: slice) -> Exchange:
        return Exchange([produce(chunk, p) for p in range(transport.size)], transport)

    for chunk, exchange in zip(chunks, _prefetch(map(start, chunks)), strict=True):
        for p in ring_order(transport):
            yield chunk, p, exchange.received[p]
            if p == transport.rank:
                exchange.wait()
        exchange.received.clear()  # freed before the chunk after the next is started


def all_to_all(by_rank: Shaped[Tensor, "P *S"], transport: Transport) -> Shaped[Tensor, "P *S"]:
    """Send by_rank[p] to rank p; entry p of the result is received from p."""
    exchange = Exchange([[x] for x in by_rank], transport)
    exchange.wait()
    return torch.stack([x for (x,) in exchange.received])


def _as_widest_dtype(x: Shaped[Tensor, "A B *C"]) -> Shaped[Tensor, "A B W"]:
    """A view of x in the widest dtype that fits: strided copies go element by element."""
    x = x.reshape(*x.shape[:2], -1)
    for dtype in (torch.complex128, torch.int64, torch.int32, torch.int16):
        ratio = dtype.itemsize // x.element_size()
        if ratio and x.shape[2] % ratio == 0 and x.storage_offset() % ratio == 0:
            return x.view(dtype)
    return x


def _by_rank(z: Shaped[Tensor, "I N *C"], size: int) -> Shaped[Tensor, "P I J W"]:
    """A view of z whose columns are grouped by the rank that owns the rows of the same index."""
    assert z.is_contiguous() and z.shape[1] == size * z.shape[0]
    return _as_widest_dtype(z).view(z.shape[0], size, z.shape[0], -1).transpose(0, 1)


def transpose_(z: Tensor, transport: Transport) -> Tensor:
    """Exchange tile (a, b) of every block with its owner's tile (b, a), in place.

    Two pairs of tiles alternate: one is exchanged while the other is copied to its place.
    """
    blocks = _by_rank(z, transport.size)
    I = len(z)
    pair_bytes = z[0, 0].nbytes * transport.size
    # Two tiles a pair, each sent and received, in this turn and the next: eight at a time.
    max_tile_bytes = min(TILE_BYTES // 8, transport.buffer_bytes // 2)
    max_pairs = max_tile_bytes / pair_bytes
    tiles = split_range(I, min(I, int(max_pairs**0.5)))
    tile_pairs = [
        [(a, b)] if a == b else [(a, b), (b, a)] for n, a in enumerate(tiles) for b in tiles[n:]
    ]

    def start(tile_pair: list[tuple[slice, slice]]) -> tuple[Exchange, TensorsByRank]:
        send = [[block[i, j] for i, j in tile_pair] for block in blocks]
        # This rank's own two tiles are each other's destination.
        send[transport.rank] = [x.clone() for x in send[transport.rank]]
        destinations = [[block[j, i].transpose(0, 1) for i, j in tile_pair] for block in blocks]
        return Exchange(send, transport), destinations

    for exchange, destinations in _prefetch(map(start, tile_pairs)):
        exchange.wait_and_copy(destinations)
    return z


def _columns(fetched: Exchange, z: Tensor) -> list[Shaped[Tensor, "R J *C"]]:
    """Rows of z^T as the ranks hold them, once they have arrived."""
    fetched.wait()
    return [x.view(z.dtype).view(*x.shape[:2], *z.shape[2:]) for (x,) in fetched.received]


def transposed_rows(
    z: Shaped[Tensor, "I N *C"], max_rows: int, transport: Transport
) -> Iterator[tuple[slice, Shaped[Tensor, "R N *C"]]]:
    """(chunk, that chunk of this rank's rows of z^T); the next one is fetched while one is used."""
    blocks = _by_rank(z, transport.size).transpose(1, 2)
    row_bytes = (transport.size - 1) * len(z) * z[0, 0].nbytes
    chunks = split_range(len(z), min(max_rows, transport.buffer_bytes // row_bytes))

    def fetch(chunk: slice) -> Exchange:
        return Exchange([[block[chunk]] for block in blocks], transport)

    for chunk, fetched in zip(chunks, _prefetch(map(fetch, chunks)), strict=True):
        rows = torch.cat(_columns(fetched, z), 1)
        fetched.received.clear()
        yield chunk, rows


def map_columns_(z: Tensor, fn: ColumnFn, max_columns: int, transport: Transport) -> Tensor:
    """`fn` of every column of z, in place: fetched in one turn, computed in the next, returned in
    the third. This rank's own block never moves.
    """
    blocks = _by_rank(z, transport.size).transpose(1, 2)
    I = len(z)
    column_bytes = I * z[0, 0].nbytes
    columns_per_chunk = max(-(-I // NUM_COLUMN_CHUNKS), MIN_CHUNK_BYTES // z[0].nbytes)
    columns_per_buffer = transport.buffer_bytes // ((transport.size - 1) * column_bytes)
    chunks = split_range(I, min(max_columns, columns_per_chunk, columns_per_buffer))

    def fetch(chunk: slice) -> Exchange:
        return Exchange([[block[chunk]] for block in blocks], transport)

    def compute(chunk: slice, fetched: Exchange) -> tuple[Exchange, TensorsByRank]:
        new = [[_as_widest_dtype(x)] for x in fn(_columns(fetched, z))]
        destinations = [[block[chunk]] for block in blocks]
        new[transport.rank] = []
        destinations[transport.rank] = []
        return Exchange(new, transport), destinations

    fetches = zip(chunks, _prefetch(map(fetch, chunks)), strict=True)
    returns = (compute(chunk, fetched) for chunk, fetched in fetches)
    for exchange, destinations in _prefetch(returns):
        exchange.wait_and_copy(destinations)
    return z


class Transpose(torch.autograd.Function):
    """A transposed copy; its gradient is the transposed gradient."""

    @staticmethod
    def forward(ctx, z: Tensor, transport: Transport) -> Tensor:
        ctx.transport = transport
        return transpose_(z.clone(memory_format=torch.contiguous_format), transport)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return transpose_(grad.clone(memory_format=torch.contiguous_format), ctx.transport), None


class AllToAll(torch.autograd.Function):
    """An all-to-all; its gradient is the all-to-all of the gradient."""

    @staticmethod
    def forward(ctx, by_rank: Tensor, transport: Transport) -> Tensor:
        ctx.transport = transport
        return all_to_all(by_rank, transport)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return all_to_all(grad, ctx.transport), None
