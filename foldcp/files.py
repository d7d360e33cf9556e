"""Reading of files that a user names: regular files of bounded size, unpacked; writing of whole
files.

Every reader of every format goes through here, so that a damaged file is an error that names it,
and never a traceback.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Protocol

try:
    from lzma import LZMAError, LZMAFile
except ImportError:  # a Python that was built without it cannot unpack such archives either
    LZMAError = zlib.error
    LZMAFile = None

MAX_BYTES = 1_000_000_000  # of a file, unpacked, unless a caller says otherwise
_PACKED = (".gz", ".xz")  # endings of the names of compressed files
WORKBOOK = "xl/workbook.xml"  # in the zip archive that an xlsx file is
_CHUNK = 1 << 20

# What the standard library and the parsers of formats raise on bad input, besides ValueError.
# RuntimeError covers RecursionError and NotImplementedError; LookupError covers IndexError and
# KeyError.
INPUT_ERRORS = (
    OSError,
    EOFError,
    OverflowError,
    LookupError,
    RuntimeError,
    csv.Error,
    zlib.error,
    LZMAError,
    zipfile.BadZipFile,
)

_DESCRIPTIONS: tuple[tuple[type[BaseException], str], ...] = (
    (gzip.BadGzipFile, "a damaged gzip file"),
    (zlib.error, "a damaged gzip file"),
    (EOFError, "a truncated file"),
    (LZMAError, "damaged LZMA data"),
    (zipfile.BadZipFile, "a damaged zip archive"),
    (RecursionError, "nested too deeply"),
    (OverflowError, "a number out of range"),
    (csv.Error, "a damaged table"),
)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn the exceptions of reading an input into a ValueError that begins with `what`.

    A ValueError passes as it is: its message already names the file or the complex. So does
    MemoryError: the size of inputs is bounded, so the machine is short of memory, and the input is
    not at fault.
    """
    try:
        yield
    except UnicodeDecodeError as error:  # a ValueError that names nothing
        raise ValueError(f"{what}: {describe_error(error)}") from error
    except ValueError:
        raise
    except INPUT_ERRORS as error:
        raise ValueError(f"{what}: {describe_error(error)}") from error


def describe_error(error: BaseException) -> str:
    """An exception in a few words: the system's, or its type and the first line of its message."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = str(error).strip().partition("\n")[0] or type(error).__name__
    known = next((words for kind, words in _DESCRIPTIONS if isinstance(error, kind)), None)
    if known is not None:
        return f"{known} ({message})"
    return message if type(error) is RuntimeError else f"{type(error).__name__}: {message}"


@dataclass(frozen=True, slots=True)
class EmbeddedFile:
    """A file that is a string inside a JSON file, such as an alignment in an AlphaFold 3 job.

    `pointer` is its place there (RFC 6901), `suffix` what its name would end in: `.a3m`, `.cif`.
    """

    path: Path
    pointer: str
    suffix: str

    @property
    def name(self) -> str:
        """A file name, for messages and for what the suffix tells."""
        return f"{self.path.name}#{self.pointer}{self.suffix}"

    def __str__(self) -> str:
        return f"{self.path}#{self.pointer}"


FileSource = Path | EmbeddedFile


def unpacked_name(name: str) -> str:
    """A file's name in lower case and without the ending that says how it is compressed."""
    name = name.lower()
    return next((name.removesuffix(end) for end in _PACKED if name.endswith(end)), name)


@dataclass(frozen=True, slots=True)
class FileContent:
    """The unpacked content of a file, and its SHA-256 in hexadecimal."""

    data: bytes
    sha256: str


def read_file(path: FileSource, max_bytes: int = MAX_BYTES) -> FileContent:
    """The content of a file, unpacked if it is gzip, xz or a zip archive of one file (not an xlsx).

    Args:
        path: a regular file, a link to one, or a file inside a JSON file.
        max_bytes: the most that the file may hold once unpacked, in bytes.

    Raises:
        ValueError: naming the file, when it is absent, not a regular file (a device, a pipe, a
            folder), unreadable, damaged, or larger than `max_bytes`.
    """
    if isinstance(path, EmbeddedFile):
        return _read_embedded(path, max_bytes)
    with reading(str(path)):
        check_regular(path)
        with path.open("rb") as file:
            data = _unpack(path, file, max_bytes)
    if data.startswith(b"\x1f\x8b"):
        raise ValueError(f"{path}: is compressed with gzip twice")
    return FileContent(data, hashlib.sha256(data).hexdigest())


def _read_embedded(source: EmbeddedFile, max_bytes: int) -> FileContent:
    with reading(str(source)):
        status = source.path.stat()
        node = _parsed_json(source.path, status.st_mtime_ns, status.st_size, max_bytes)
        for key in source.pointer.split("/")[1:]:
            name = key.replace("~1", "/").replace("~0", "~")
            node = node[int(name)] if isinstance(node, list) else node[name]
    if not isinstance(node, str):
        raise ValueError(f"{source}: expected the text of a file")
    data = node.encode("utf-8", errors="surrogatepass")
    return FileContent(data, hashlib.sha256(data).hexdigest())


@lru_cache(maxsize=1)  # the chains of one job are read one after the other
def _parsed_json(path: Path, mtime_ns: int, num_bytes: int, max_bytes: int) -> Any:
    try:
        # Numbers are no files, and one of thousands of digits is none of Python's either.
        return json.loads(decode_text(read_file(path, max_bytes).data), parse_int=str)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error


def decode_text(data: bytes) -> str:
    """A text of any common encoding, without its byte order mark."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # spreadsheets save "Unicode text" so
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # All that matters is ASCII; another single-byte encoding garbles a title at worst.
        return data.decode("cp1252", errors="replace")


def check_regular(path: Path) -> None:
    """Raise ValueError for anything but a regular file; reading a pipe or device may never end."""
    with reading(str(path)):
        mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path}: is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path}: not a regular file (a pipe, a socket or a device)")


def is_regular(path: Path) -> bool:
    """Whether a path is a regular file or a link to one; False if it cannot be accessed."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False


def _unpack(path: Path, file: IO[bytes], max_bytes: int) -> bytes:
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=file) as unpacked:
            return _read_bounded(path, unpacked, max_bytes)
    if magic.startswith(b"PK\x03\x04"):
        return _unzip(path, file, max_bytes)
    if magic == b"\xfd7zXZ\0":
        if LZMAFile is None:
            raise ValueError(f"{path}: is compressed with xz, which this Python cannot unpack")
        with LZMAFile(file) as unpacked:
            return _read_bounded(path, unpacked, max_bytes)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        raise ValueError(f"{path}: is compressed with Zstandard, which is not read; unpack it")
    return _read_bounded(path, file, max_bytes)


def _unzip(path: Path, file: IO[bytes], max_bytes: int) -> bytes:
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if not _is_no_file_of_the_users(name)]
        if WORKBOOK in names:  # an Excel file is itself a zip archive
            file.seek(0)
            return _read_bounded(path, file, max_bytes)
        if len(names) != 1:
            raise ValueError(f"{path}: a zip archive of {len(names)} files; expected one")
        with archive.open(names[0]) as unpacked:
            return _read_bounded(path, unpacked, max_bytes)


def _is_no_file_of_the_users(name: str) -> bool:
    """Whether a member of an archive is a folder, or a file that macOS adds to the user's."""
    parts = name.split("/")
    return name.endswith("/") or parts[0] == "__MACOSX" or parts[-1] == ".DS_Store"


def _read_bounded(path: Path, file: _Readable, max_bytes: int) -> bytes:
    """All of a file, a chunk at a time: a small archive may unpack to more than fits in memory."""
    content = io.BytesIO()
    while chunk := file.read(_CHUNK):
        if content.tell() + len(chunk) > max_bytes:
            raise ValueError(
                f"{path}: holds more than {max_bytes:,} bytes once unpacked (see the settings "
                "limits.input_bytes and limits.msa_bytes)"
            )
        content.write(chunk)
    return content.getvalue()


def write_file(path: Path, content: bytes, part: Path | None = None) -> None:
    """Write a file, and its folder, as a whole or not at all; on the disk when this returns.

    `part` has the bytes until they are complete, by default a file beside it. Raises ValueError
    naming the file where that cannot be done.
    """
    part = part or path.with_name(f"{path.name}.{os.getpid()}.part")
    with reading(str(path)):
        is_new_folder = not path.parent.is_dir()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(path.parent)
        if is_new_folder:
            sync_folder(path.parent.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as it is, in hexadecimal, read in chunks. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_unchanged(what: str, content: FileContent, sha256: str) -> None:
    """Raise ValueError, which begins with `what`, unless the hash matches; "" matches all."""
    if sha256 and content.sha256 != sha256:
        raise ValueError(
            f"{what}: its content has changed since the run began; the next run will read it again"
        )
