"""Archives of torch.save: a zip of one pickle and the storages of its tensors, memory-mapped."""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from foldcp.checkpoint.unpickling import Global, OpaqueObject, unpickle
from foldcp.files import reading

MAGIC = b"PK\x03\x04"
# The pickle holds names and sizes, not weights: about 2 MB in Boltz-2's files. The objects it
# describes may take 200 times its size.
MAX_PICKLE_BYTES = 32_000_000
MAX_DIMENSIONS = 64
# Signature, lengths of name and extra field (PKWARE's APPNOTE 4.3.7).
LOCAL_HEADER = struct.Struct("<4s22xHH")

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
    with (
        reading(f"{path}: not a checkpoint that torch.load can read"),
        path.open("rb") as file,
    ):
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path}: not a checkpoint (its zip archive is incomplete)")
        try:
            archive = _Archive(path, file)
            return unpickle(
                archive.read("data.pkl", MAX_PICKLE_BYTES),
                CONSTRUCTORS,
                archive.load_storage,
            )
        except ValueError as error:
            raise ValueError(
                f"{path}: not a checkpoint that torch.load can read ({error})"
            ) from error


@dataclass(frozen=True, slots=True)
class _Storage:
    """A part of the mapped file, as elements of one type."""

    data: torch.UntypedStorage
    dtype: torch.dtype

    def __len__(self) -> int:
        return self.data.nbytes() // self.dtype.itemsize


class _Archive:
    """The entries of one file."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.file = file
        self.zip = zipfile.ZipFile(file)
        self.entries = {entry.filename: entry for entry in self.zip.infolist()}
        if len(self.entries) < len(self.zip.infolist()):
            raise ValueError("two entries of the archive have the same name")
        folders = {name.partition("/")[0] for name in self.entries}
        if len(folders) != 1:
            raise ValueError(f"the archive holds {len(folders)} folders; expected one")
        self.folder = folders.pop()
        if f"{self.folder}/constants.pkl" in self.entries:
            raise ValueError("a TorchScript program, not weights")
        if self.read("byteorder", 16, absent=b"little") != b"little":
            raise ValueError("not little-endian")
        size = path.stat().st_size
        self.mapped = torch.UntypedStorage.from_file(str(path), False, size)

    def entry(self, name: str) -> zipfile.ZipInfo:
        """An entry, which must be stored without compression."""
        entry = self.entries.get(f"{self.folder}/{name}")
        if entry is None:
            raise ValueError(f"the archive has no entry {name}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ValueError(f"entry {name} is compressed, which torch.save never does")
        return entry

    def read(self, name: str, max_bytes: int, absent: bytes | None = None) -> bytes:
        """The content of a small entry, its CRC checked."""
        if absent is not None and f"{self.folder}/{name}" not in self.entries:
            return absent
        entry = self.entry(name)
        if entry.file_size > max_bytes:
            raise ValueError(f"entry {name} has {entry.file_size:,} bytes, more than {max_bytes:,}")
        return self.zip.read(entry)

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
        entry = self.entry(f"data/{key}")
        if num_bytes > entry.file_size:
            raise ValueError(f"storage {key} has {entry.file_size:,} bytes; expected {num_bytes:,}")
        return self.view(self.start_of(entry), num_bytes, dtype)

    def view(self, start: int, num_bytes: int, dtype: torch.dtype) -> _Storage:
        """A part of the mapped file; nothing is read yet."""
        data = self.mapped[start : start + num_bytes]
        assert isinstance(data, torch.UntypedStorage) and data.nbytes() == num_bytes
        return _Storage(data, dtype)

    def start_of(self, entry: zipfile.ZipInfo) -> int:
        """The offset of an entry's content in the file, checked to lie within it."""
        self.file.seek(entry.header_offset)
        header = self.file.read(LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size or not header.startswith(MAGIC):
            raise ValueError(f"entry {entry.filename} is not where the archive's directory says")
        _, len_name, len_extra = LOCAL_HEADER.unpack(header)
        start = entry.header_offset + LOCAL_HEADER.size + len_name + len_extra
        if start + entry.file_size > self.mapped.nbytes():
            raise ValueError(f"entry {entry.filename} reaches beyond the end of the file")
        return start


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


def _make_size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(arguments) != 1 or not isinstance(arguments[0], tuple | list):
        raise ValueError("a size that is not a list of numbers")
    return tuple(arguments[0])


def _make_dict(_: tuple[Any, ...]) -> dict[Any, Any]:
    """An empty dict; its items follow in the pickle."""
    return {}


REBUILD_TENSOR = Global("torch._utils", "_rebuild_tensor_v2")
CONSTRUCTORS: Mapping[Global, Any] = {
    REBUILD_TENSOR: _rebuild_tensor,
    Global("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    Global("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    Global("torch", "Size"): _make_size,
    Global("collections", "OrderedDict"): _make_dict,
    Global("collections", "defaultdict"): _make_dict,
}
