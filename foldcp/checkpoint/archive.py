"""Archives of torch.save: a zip of one pickle and the storages of its tensors. Without torch."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from foldcp.checkpoint.unpickling import Global, OpaqueObject, unpickle
from foldcp.files import reading

MAGIC = b"PK\x03\x04"
# The pickle holds names and sizes, not weights: about 2 MB in Boltz-2's files. The objects it
# describes may take 200 times its size.
MAX_PICKLE_BYTES = 32_000_000
PICKLE = "data.pkl"
# Signature, lengths of name and extra field (PKWARE's APPNOTE 4.3.7).
LOCAL_HEADER = struct.Struct("<4s22xHH")


def read_outline(path: Path) -> Any:
    """The object that torch.save wrote, with an `OpaqueObject` in the place of each tensor.

    Raises ValueError as `read_archive` does, but for what is wrong with a tensor.
    """
    with open_archive(path) as archive:
        pickled = archive.read(PICKLE, MAX_PICKLE_BYTES)
        return unpickle(pickled, PLAIN_CONSTRUCTORS, lambda _: OpaqueObject(STORAGE))


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The entries of an archive. Raises ValueError naming the file, also for what is found wrong
    while it is open.
    """
    with (
        reading(f"{path}: not a checkpoint that torch.load can read"),
        path.open("rb") as file,
    ):
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path}: not a checkpoint (its zip archive is incomplete)")
        try:
            yield Archive(file, path.stat().st_size)
        except ValueError as error:
            raise ValueError(
                f"{path}: not a checkpoint that torch.load can read ({error})"
            ) from error


class Archive:
    """The entries of one file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file = file
        self.size = size
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

    def start_of(self, entry: zipfile.ZipInfo) -> int:
        """The offset of an entry's content in the file, checked to lie within it."""
        self.file.seek(entry.header_offset)
        header = self.file.read(LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size or not header.startswith(MAGIC):
            raise ValueError(f"entry {entry.filename} is not where the archive's directory says")
        _, len_name, len_extra = LOCAL_HEADER.unpack(header)
        start = entry.header_offset + LOCAL_HEADER.size + len_name + len_extra
        if start + entry.file_size > self.size:
            raise ValueError(f"entry {entry.filename} reaches beyond the end of the file")
        return start


def _make_size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(arguments) != 1 or not isinstance(arguments[0], tuple | list):
        raise ValueError("a size that is not a list of numbers")
    return tuple(arguments[0])


def _make_dict(_: tuple[Any, ...]) -> dict[Any, Any]:
    """An empty dict; its items follow in the pickle."""
    return {}


STORAGE = Global("torch", "UntypedStorage")
# Of what torch.save writes beside tensors.
PLAIN_CONSTRUCTORS: Mapping[Global, Any] = {
    Global("torch", "Size"): _make_size,
    Global("collections", "OrderedDict"): _make_dict,
    Global("collections", "defaultdict"): _make_dict,
}
