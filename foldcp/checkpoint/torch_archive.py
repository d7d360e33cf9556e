"""Tensors in archives of torch.save, memory-mapped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foldcp.checkpoint.archive import (
    MAX_PICKLE_BYTES,
    PICKLE,
    PLAIN_CONSTRUCTORS,
    Archive,
    open_archive,
)
from foldcp.checkpoint.unpickling import Global, OpaqueObject, unpickle

MAX_DIMENSIONS = 64

STORAGE_TYPES = {
    Global("torch", "FloatStorage"): torch.float32,
    Global("torch", "DoubleStorage"): torch.float64,
    Global("torch", "HalfStorage"): torch.float16,
    Global("torch", "BFloat16Storage"): torch.bfloat16,
    Global("torch", "LongStorage"): torch.int64,
    Global("torch", "IntStorage"): torch.int32,
    Global("torch", "ShortStorage"): torch.int16,
    Global("torch", "CharStorage"): torch.int8,
    Global("torch", "ByteStorage"): torch.uint8,
    Global("torch", "BoolStorage"): torch.bool,
}


def read_archive(path: Path) -> Any:
    """The object that torch.save wrote, its tensors on the CPU; no code of the file runs.

    Dicts, lists, tuples, numbers, text and dense tensors come back, anything else as
    `OpaqueObject`. Processes that read one file share its pages.

    Raises:
        ValueError: naming the file, when it is not such an archive, damaged or a TorchScript
            program, and when an entry is compressed or a tensor reaches beyond its storage.
    """
    with open_archive(path) as archive:
        mapped = _Mapped(archive, path)
        pickled = archive.read(PICKLE, MAX_PICKLE_BYTES)
        return unpickle(pickled, CONSTRUCTORS, mapped.load_storage)


@dataclass(frozen=True, slots=True)
class _Storage:
    """A part of the mapped file, as elements of one type."""

    data: torch.UntypedStorage
    dtype: torch.dtype

    def __len__(self) -> int:
        return self.data.nbytes() // self.dtype.itemsize


class _Mapped:
    """The storages of an archive."""

    def __init__(self, archive: Archive, path: Path) -> None:
        self.archive = archive
        self.mapped = torch.UntypedStorage.from_file(str(path), False, archive.size)

    def load_storage(self, name: Any) -> _Storage | OpaqueObject:
        """The storage of a persistent ID: ("storage", type, key, device, number of elements)."""
        if not isinstance(name, tuple) or len(name) != 5 or name[0] != "storage":
            raise ValueError("the pickle refers to something other than a storage")
        _, kind, key, _, numel = name
        if not isinstance(kind, Global) or not isinstance(key, str) or not _are_sizes((numel,)):
            raise ValueError("the pickle holds an invalid description of a storage")
        dtype = STORAGE_TYPES.get(kind)
        if dtype is None:
            return OpaqueObject(kind)
        num_bytes = numel * dtype.itemsize
        if num_bytes == 0:
            return self.view(0, 0, dtype)
        entry = self.archive.entry(f"data/{key}")
        if num_bytes > entry.file_size:
            raise ValueError(f"storage {key} has {entry.file_size:,} bytes; expected {num_bytes:,}")
        return self.view(self.archive.start_of(entry), num_bytes, dtype)

    def view(self, start: int, num_bytes: int, dtype: torch.dtype) -> _Storage:
        """A part of the mapped file; nothing is read yet."""
        data = self.mapped[start : start + num_bytes]
        assert isinstance(data, torch.UntypedStorage) and data.nbytes() == num_bytes
        return _Storage(data, dtype)


def _rebuild_tensor(arguments: tuple[Any, ...]) -> Tensor | OpaqueObject:
    """A dense tensor from storage, offset, size and strides (in elements).

    Of the arguments that may follow only the metadata (conjugate or negative views) matter.
    """
    if len(arguments) not in (6, 7):
        raise ValueError(f"a tensor with {len(arguments)} arguments; expected 6 or 7")
    storage, offset, size, stride = arguments[:4]
    conjugate_or_negative = arguments[6:] not in ((), ({},), (None,))
    if not isinstance(storage, _Storage) or conjugate_or_negative:
        return OpaqueObject(REBUILD_TENSOR)
    if (
        not isinstance(size, tuple)
        or not isinstance(stride, tuple)
        or not _are_sizes((offset, *size, *stride))
    ):
        raise ValueError("a tensor whose offset, size or strides are not integers")
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        raise ValueError(f"a tensor with {len(size)} sizes and {len(stride)} strides")
    if math.prod(size) == 0:
        return torch.empty(size, dtype=storage.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= len(storage):
        raise ValueError(f"a tensor reaches element {last:,} of a storage of {len(storage):,}")
    return torch.empty(0, dtype=storage.dtype).set_(storage.data, offset, size, stride)


def _rebuild_parameter(arguments: tuple[Any, ...]) -> Any:
    """The tensor of a parameter, its first argument."""
    if not arguments or not isinstance(arguments[0], Tensor | OpaqueObject):
        raise ValueError("a parameter without a tensor")
    return arguments[0]


def _are_sizes(numbers: tuple[Any, ...]) -> bool:
    return all(type(n) is int and 0 <= n < 2**63 for n in numbers)


REBUILD_TENSOR = Global("torch._utils", "_rebuild_tensor_v2")
CONSTRUCTORS: Mapping[Global, Any] = {
    REBUILD_TENSOR: _rebuild_tensor,
    Global("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    Global("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    **PLAIN_CONSTRUCTORS,
}
