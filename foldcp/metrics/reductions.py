"""Partial results of one rank under named fields, and their reduction over rows and ranks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.metrics.chains import ChainRows

V = TypeVar("V", bound="RowValues")


@dataclass(frozen=True)
class RowValues:
    """Values of each of this rank's rows, which a subclass names: its fields are tensors of one
    shape, [R] or [R, C], and of one type.

    The methods reduce all fields together, over the rows and then over the ranks, and return the
    same class with the results, equal on every rank and in host memory. They are collective, and
    what crosses the wire is O(C^2) for [R, C] and O(1) for [R].
    """

    def max(self: V, cp: ContextParallel) -> V:
        """[R] -> []: maxima over all rows, at least 0."""
        values = self._stack()
        zero = values.new_zeros(1, values.shape[1])
        largest = torch.cat([zero, values]).amax(0, keepdim=True)
        by_rank = cp.all_gather(largest)
        return self._unstack(by_rank.amax(0))

    def sum(self: V, cp: ContextParallel) -> V:
        """[R] -> []: sums over all rows, in double precision."""
        total = self._stack().sum(0, keepdim=True, dtype=torch.float64)
        by_rank = cp.all_gather(total)
        return self._unstack(by_rank.sum(0))

    def max_by_chain(self: V, rows: ChainRows, cp: ContextParallel) -> V:
        """[R, C] -> [C, C]: maxima over the rows of each chain."""
        largest = rows.max(self._stack())
        by_rank = cp.all_gather(largest[None])
        return self._unstack(by_rank.amax(0))

    def min_by_chain(self: V, rows: ChainRows, cp: ContextParallel) -> V:
        """[R, C] -> [C, C]: minima over the rows of each chain."""
        negative = rows.max(-self._stack())
        by_rank = cp.all_gather(negative[None])
        return self._unstack(-by_rank.amax(0))

    def sum_by_chain(self: V, rows: ChainRows, cp: ContextParallel) -> V:
        """[R, C] -> [C, C]: sums over the rows of each chain, in double precision."""
        total = rows.sum(self._stack())
        by_rank = cp.all_gather(total[None])
        return self._unstack(by_rank.sum(0))

    def _stack(self) -> Float[Tensor, "R *C K"]:
        values = [getattr(self, field.name) for field in fields(self)]
        return torch.stack(values, -1)

    def _unstack(self: V, values: Float[Tensor, "*C K"]) -> V:
        on_host = values.cpu()
        return type(self)(*on_host.unbind(-1))
