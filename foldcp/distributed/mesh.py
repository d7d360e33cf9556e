"""Mesh of data parallelism and context parallelism: groups of P ranks that each hold one example.

Of D x P ranks, those from g P to (g + 1) P - 1 are the context group g. Each group works on
examples of its own; what the groups have in common, gradients and weights, goes through all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from foldcp.distributed.collectives import all_gather_into, gather_objects
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.distributed.transport import make_transport

T = TypeVar("T")


@dataclass(frozen=True)
class Mesh:
    """This rank's place among D x P ranks, and the collectives of all of them.

    A process of its own needs no process group, and every method is then the identity.
    """

    rank: int
    size: int  # D x P
    cp: ContextParallel  # its context group
    device: torch.device

    @property
    def data_rank(self) -> int:
        """The number of this rank's context group."""
        return self.rank // self.cp.size

    @property
    def data_size(self) -> int:
        """D, the number of context groups."""
        return self.size // self.cp.size

    @classmethod
    def init(
        cls,
        rank: int,
        size: int,
        context_size: int,
        init_method: str,
        device: torch.device,
        timeout: float = 1800.0,
    ) -> Mesh:
        """Initialize the process groups: NCCL on GPUs, gloo on CPUs. Collective.

        Raises ValueError when the ranks do not divide into groups of `context_size`, and what
        `ContextParallel.init` raises.
        """
        if size % context_size:
            raise ValueError(
                f"{size} ranks do not divide into groups of {context_size} (context_parallel)"
            )
        whole = ContextParallel.init(rank, size, init_method, device, timeout)
        return cls.of(whole, context_size, device, timeout)

    @classmethod
    def of(
        cls,
        whole: ContextParallel,
        context_size: int,
        device: torch.device,
        timeout: float = 1800.0,
    ) -> Mesh:
        """The mesh of the ranks of the default process group. Collective."""
        cp = whole
        if context_size < whole.size:
            cp = _context_group(whole.rank, whole.size, context_size, device, timeout)
        return cls(whole.rank, whole.size, cp, device)

    def destroy(self) -> None:
        """Destroy the process groups."""
        if self.size > 1:
            dist.destroy_process_group()

    def sum_(self, x: Tensor) -> Tensor:
        """x, replaced by the sum over all ranks."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def gather_shares_(self, whole: Tensor) -> Tensor:
        """`whole`, of which each rank has set its share, with the shares of all ranks."""
        if self.size > 1:
            all_gather_into(whole, self.share(whole).clone())
        return whole

    def share(self, whole: Tensor) -> Tensor:
        """This rank's share of a vector whose length the number of ranks divides; a view."""
        return whole.chunk(self.size)[self.rank]

    def gather_objects(self, x: T) -> list[T]:
        """The objects of all ranks, in their order; for what is small and rare."""
        return [x] if self.size == 1 else gather_objects(x, self.size, None)


def _context_group(
    rank: int, size: int, context_size: int, device: torch.device, timeout: float
) -> ContextParallel:
    """The context group of a rank, among several."""
    own = ContextParallel()
    if context_size == 1:
        return own
    options = None
    if device.type == "cuda":
        options = dist.ProcessGroupNCCL.Options(is_high_priority_stream=True)
    for first in range(0, size, context_size):
        ranks = list(range(first, first + context_size))
        group = dist.new_group(ranks, timedelta(seconds=timeout), pg_options=options)
        if rank in ranks:
            assert isinstance(group, dist.ProcessGroup)
            place = rank - first
            transport = make_transport(place, context_size, group, device)
            own = ContextParallel(place, context_size, group, transport)
    return own
