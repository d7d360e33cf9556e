"""Context parallelism: this rank's rows of the N x N arrays, and all communication between ranks.

An array `z[N, N, C]` is sharded by rows over the P ranks of a group: rank r holds `z[I, N, C]`,
I = N / P, the rows r*I .. (r+1)*I - 1. N is padded to a multiple of P beforehand, with a mask. At
P = 1 every method is the identity (`transpose` is the plain transpose), so layers are written once,
without asking for P. All methods but `shard` and `first_row` are collective: every rank of the
group calls them, in the same order, with tensors of the same shapes.

Gradients: the gradient of a tensor that is whole on every rank is a partial one on each of them,
and the partial ones add up to the true gradient. Hence each rank differentiates the loss of its own
rows, and the gradients of the weights are summed over the ranks at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from foldcp.distributed import collectives, pipelining
from foldcp.distributed.pipelining import ColumnFn, split_range
from foldcp.distributed.transport import P2PTransport, Transport, make_transport

T = TypeVar("T")


class ContextParallel:
    """This rank's place among the P ranks that hold one complex, and their collectives."""

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        group: dist.ProcessGroup | None = None,
        transport: Transport | None = None,
    ) -> None:
        assert 0 <= rank < size and (size == 1 or group is not None)
        self.rank = rank
        self.size = size
        self.group = group
        self.transport = transport or P2PTransport(rank, size, group)

    @classmethod
    def init(
        cls,
        rank: int,
        size: int,
        init_method: str,
        device: torch.device,
        timeout: float = 1800.0,
    ) -> ContextParallel:
        """Initialize the process group: NCCL on GPUs, gloo on CPUs; none for a group of one.

        `init_method` is `file://..`, `tcp://host:port` or `env://`. Raises torch's DistNetworkError
        or DistStoreError when the other ranks do not join within `timeout` seconds.
        """
        if size == 1:
            return cls()
        cuda = device.type == "cuda"
        options = None
        if cuda:
            # Communication under a computation must not queue behind its thousands of blocks.
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
        return cls(rank, size, group, make_transport(rank, size, group, device))

    def destroy(self) -> None:
        """Destroy the process group."""
        if self.size > 1:
            dist.destroy_process_group()

    def first_row(self, N: int) -> int:
        """Index of this rank's first row among N. Not collective."""
        assert N % self.size == 0, f"{N} rows do not divide by {self.size} ranks"
        return self.rank * (N // self.size)

    def shard(self, x: Shaped[Tensor, "..."], dim: int = 0) -> Shaped[Tensor, "..."]:
        """This rank's slice of a tensor that is whole on every rank; a view. Not collective."""
        N = x.shape[dim]
        return x.narrow(dim, self.first_row(N), N // self.size)

    def all_gather(self, x: Shaped[Tensor, "..."], dim: int = 0) -> Shaped[Tensor, "..."]:
        """The whole tensor on every rank, from the ranks' slices along `dim`.

        A rank receives P - 1 times the bytes of x. Backward: all-reduce, then this rank's slice.
        """
        if self.size == 1:
            return x
        whole = collectives.AllGather.apply(x.movedim(dim, 0), self.rank, self.size, self.group)
        return whole.movedim(0, dim)

    def all_reduce(self, x: Shaped[Tensor, "*S"]) -> Shaped[Tensor, "*S"]:
        """The sum over ranks, on every rank. Backward: the same sum of the gradients."""
        return x if self.size == 1 else collectives.AllReduce.apply(x, self.group)

    def all_reduce_min(self, number: int, device: torch.device) -> int:
        """The smallest of the ranks' numbers, such as how many rows of an array go at a time.

        Waits for the device.
        """
        return number if self.size == 1 else collectives.all_reduce_min(number, device, self.group)

    def broadcast(self, x: Shaped[Tensor, "*S"]) -> Shaped[Tensor, "*S"]:
        """The first rank's x on every rank. Without gradients."""
        return x if self.size == 1 else collectives.broadcast(x, self.group)

    def gather_objects(self, x: T) -> list[T]:
        """The objects of all ranks, in their order. Pickled, and on GPUs sent through their memory;
        for what is small beside the pair representation.
        """
        return [x] if self.size == 1 else collectives.gather_objects(x, self.size, self.group)

    def fence(self) -> None:
        """Begin or end a CUDA graph with collectives: see `Transport.fence`."""
        self.transport.fence()

    def transpose(self, z: Shaped[Tensor, "I N *C"]) -> Shaped[Tensor, "I N *C"]:
        """The rows of z^T. A rank sends and receives (P - 1) / P of z.

        Without gradients `z`'s memory is reused and `z` must not be read again; writing to the
        result and transposing back updates it in place. Backward: the same of the gradient.
        """
        if self.size == 1:
            return z.transpose(0, 1)
        if torch.is_grad_enabled() and z.requires_grad:
            return pipelining.Transpose.apply(z, self.transport)
        return pipelining.transpose_(z, self.transport)

    def transposed_rows(
        self, z: Shaped[Tensor, "I N *C"], max_rows: int
    ) -> Iterator[tuple[slice, Shaped[Tensor, "R N *C"]]]:
        """(chunk, that chunk of this rank's rows of z^T), at most `max_rows` of them at a time,
        while z stays as it is.

        A rank sends and receives (P - 1) / P of z, but holds only two chunks of it, without
        gradients. Every rank passes the same `max_rows`. Backward: that of `transpose`.
        """
        if self.size > 1 and not torch.is_grad_enabled():
            yield from pipelining.transposed_rows(z, max_rows, self.transport)
        else:
            whole = self.transpose(z if self.size == 1 or z.requires_grad else z.clone())
            yield from ((chunk, whole[chunk]) for chunk in split_range(len(whole), max_rows))

    def map_columns(
        self, z: Shaped[Tensor, "I N *C"], fn: ColumnFn, max_columns: int
    ) -> Shaped[Tensor, "I N *C"]:
        """z with every row of z^T replaced by `fn` of it, at most `max_columns` of them at a time.

        `fn` takes rows of z^T as a list of the blocks that the ranks hold (one block at P = 1),
        which joined along the second dimension are N long. Without gradients z is updated in place,
        as `fn` may update its blocks: one chunk of columns arrives and another returns while a
        third is computed. A rank sends and receives 2 (P - 1) / P of z. Every rank passes the same
        `max_columns`. Backward: that of two transposes.
        """
        if self.size > 1 and not torch.is_grad_enabled():
            return pipelining.map_columns_(z, fn, max_columns, self.transport)
        columns = self.transpose(z)
        out = torch.empty_like(columns) if torch.is_grad_enabled() else columns
        for chunk in split_range(len(columns), max_columns):
            (new,) = fn([columns[chunk]])
            if out is not columns:
                out[chunk] = new
        return self.transpose(out)

    def pipelined_all_gather(
        self, b: Shaped[Tensor, "D *S"]
    ) -> Iterator[tuple[slice, int, Shaped[Tensor, "R *S"]]]:
        """(chunk of D, rank p, that chunk of p's b) for every chunk and rank, this rank first.

        The next chunk is sent while one is used. A rank receives P - 1 times the bytes of b, but
        holds only two chunks of them, without gradients. Backward: that of `all_gather`.
        """
        if self.size == 1:
            yield slice(0, len(b)), 0, b
        elif torch.is_grad_enabled() and b.requires_grad:
            whole = self.all_gather(b[None])
            yield from (
                (slice(0, len(b)), p, whole[p]) for p in pipelining.ring_order(self.transport)
            )
        else:
            blocks = pipelining.pipelined_exchange(
                self.transport, len(b), b[0].nbytes, lambda chunk, _: [b[chunk]]
            )
            yield from ((chunk, p, block) for chunk, p, (block,) in blocks)

    def pipelined_all_to_all(
        self, a: Shaped[Tensor, "D I N"], b: Shaped[Tensor, "D *S"]
    ) -> Iterator[tuple[slice, int, Shaped[Tensor, "R I I"], Shaped[Tensor, "R *S"]]]:
        """(chunk of D, rank p, p's rows and this rank's columns of a, p's b), this rank first.

        The columns of a by all-to-all beside the all-gather of b; the next chunk is sent while one
        is used. A rank receives (P - 1) / P of a and P - 1 times b. Backward: the all-to-all of
        the gradient of a, and that of `all_gather`.
        """
        if self.size == 1:
            yield slice(0, len(b)), 0, a, b
            return
        by_rank = a.unflatten(2, (self.size, -1)).permute(2, 0, 1, 3)
        if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
            columns = pipelining.AllToAll.apply(by_rank, self.transport)
            for chunk, p, block in self.pipelined_all_gather(b):
                yield chunk, p, columns[p, chunk], block
        else:
            index_bytes = by_rank[0, 0].nbytes + b[0].nbytes
            blocks = pipelining.pipelined_exchange(
                self.transport,
                len(a),
                index_bytes,
                lambda chunk, p: [by_rank[p, chunk], b[chunk]],
            )
            yield from ((chunk, p, columns, block) for chunk, p, (columns, block) in blocks)
