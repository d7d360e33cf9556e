"""Partial results of one rank under named fields: their reduction over rows and ranks, and their
transfer between host and device.

Values are nested: dataclasses, tuples and dicts of tensors, and of what is none (`None`, numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.metrics.chains import ChainRows

V = TypeVar("V", bound="RowValues")
Nested = TypeVar("Nested")


@dataclass(frozen=True)
class RowValues:
    """Values of each of this rank's rows, which a subclass names: its fields are tensors of one
    shape, [R] or [R, C], and of one type, or themselves such values, one or a tuple of them.

    The methods reduce all tensors together, over the rows and then over the ranks, and return the
    same class with the results, equal on every rank. These stay on the device, which nothing here
    waits for. They are collective, one exchange each, and what crosses the wire is O(C^2) for
    [R, C] and O(1) for [R].
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

    def sum_by_chain(self: V, rows: ChainRows, cp: ContextParallel) -> V:
        """[R, C] -> [C, C]: sums over the rows of each chain, in double precision."""
        total = rows.sum(self._stack())
        by_rank = cp.all_gather(total[None])
        return self._unstack(by_rank.sum(0))

    def _stack(self) -> Float[Tensor, "R *C K"]:
        return torch.stack(tensors_of(self), -1)

    def _unstack(self: V, values: Float[Tensor, "*C K"]) -> V:
        # Contiguous, as `to_host` would otherwise copy each by itself.
        each = iter(values.movedim(-1, 0).contiguous())
        return map_tensors(lambda _: next(each), self)


def to_host(values: Nested) -> Nested:
    """`to_device` of host memory. Waits for the device."""
    return to_device(values, torch.device("cpu"))


def to_device(values: Nested, device: torch.device) -> Nested:
    """The same values with their tensors on a device, equal to the bit. All tensors of one type
    move in one copy.
    """
    tensors = tensors_of(values)
    moved = {}
    for dtype in {x.dtype: None for x in tensors}:  # in their order
        of_type = [x for x in tensors if x.dtype == dtype]
        packed = torch.cat([x.flatten() for x in of_type]).to(device)
        moved[dtype] = iter(packed.split([x.numel() for x in of_type]))
    return map_tensors(lambda x: next(moved[x.dtype]).view(x.shape), values)


def tensors_of(values: object) -> list[Tensor]:
    """The tensors of nested values, in order."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, tuple):
        parts: Iterable[object] = values
    elif isinstance(values, dict):
        parts = values.values()
    elif is_dataclass(values):
        parts = [getattr(values, each.name) for each in fields(values)]
    else:
        return []
    return [x for part in parts for x in tensors_of(part)]


def map_tensors(function: Callable[[Tensor], Tensor], values: Any) -> Any:
    """The same nested values with `function` of each tensor in its place, in order."""
    if isinstance(values, Tensor):
        return function(values)
    if isinstance(values, tuple):
        return tuple(map_tensors(function, x) for x in values)
    if isinstance(values, dict):
        return {key: map_tensors(function, x) for key, x in values.items()}
    if is_dataclass(values) and not isinstance(values, type):
        names = [each.name for each in fields(values)]
        mapped = {name: map_tensors(function, getattr(values, name)) for name in names}
        return replace(values, **mapped)
    return values
