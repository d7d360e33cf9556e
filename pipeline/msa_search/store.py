"""Writing of a folder of alignments: whole files, then a line of the index for each."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from foldcp.datasets.msa_store import (
    FORMAT,
    IDENTITY,
    INDEX,
    StoredMsa,
    alignment_path,
    read_index,
)
from foldcp.datasets.msas import paired_name
from foldcp.features.msa.parse import UNPAIRED
from foldcp.files import reading, write_file
from foldcp.pipeline.msa_search.search import AlignedRow, FoundAlignment, FoundPairs
from foldcp.pipeline.msa_search.statistics import msa_statistics

TEMPORARY = ".tmp"
LOCK = ".lock"
TICKETS = ".tickets"  # of searches that a server still works on
_GZIP_LEVEL = 6
_ROW = re.compile(r"[A-Za-z-]+")
_INSERTIONS = re.compile("[a-z]")


class RowsError(ValueError):
    """Rows that are no alignment of their sequence."""


class MsaStore:
    """A folder of alignments, opened by its one writer.

    Its alignments are those of searches of one `identity`. Raises ValueError for a folder of
    another identity, one that holds other files, and one that another process writes.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self.folder = folder
        self.identity_digest = _digest(identity)
        with reading(str(folder)):
            _check_folder(folder)
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _take_lock(folder / LOCK)
            try:
                self._prepare(identity)
                # without a buffer, which a full disk would leave to be written when it is closed
                self._index = (folder / INDEX).open("ab", buffering=0)
            except BaseException:
                self._lock.close()
                raise

    def _prepare(self, identity: Mapping[str, str]) -> None:
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir(exist_ok=True)
        if (self.folder / IDENTITY).exists():
            _check_identity(self.folder, identity)
        else:
            content = {"format": FORMAT, "identity": dict(identity)}
            text = json.dumps(content, indent=1, sort_keys=True) + "\n"
            self._install(self.folder / IDENTITY, text.encode())
        _repair(self.folder / INDEX)
        self.stored = {entry.sha256 for entry in read_index(self.folder)}

    @property
    def temporary(self) -> Path:
        """A folder for temporary files, emptied whenever the store is opened."""
        return self.folder / TEMPORARY

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._index.close()
        shutil.rmtree(self.temporary, ignore_errors=True)
        self._lock.close()

    def __contains__(self, sequence: str) -> bool:
        return sequence_sha256(sequence) in self.stored

    def add(self, found: FoundAlignment) -> StoredMsa:
        """Store an alignment; it is on the disk when this returns.

        Raises RowsError where the rows are no alignment of the sequence, any other ValueError where
        it cannot be written.
        """
        check_rows(found)
        sha256 = sequence_sha256(found.sequence)
        content = table(found.rows)
        self._install(alignment_path(self.folder, sha256), content)
        entry = StoredMsa(
            sha256,
            len(found.sequence),
            msa_statistics([row.text for row in found.rows]),
            found.origin,
            self.identity_digest,
            hashlib.sha256(content).hexdigest(),
        )
        with reading(str(self.folder / INDEX)):
            _write_all(self._index, _line(entry))
        self.stored.add(sha256)
        return entry

    def has_pairs(self, sequences: Iterable[str]) -> bool:
        """Whether the folder has the paired alignment of proteins."""
        return (self.folder / paired_name(sequences)).exists()

    def add_pairs(self, found: FoundPairs) -> None:
        """Store a paired alignment; it is on the disk when this returns.

        Raises ValueError where it cannot be written.
        """
        self._install(self.folder / paired_name(found.sequences), _packed(found.text))

    def _install(self, path: Path, content: bytes) -> None:
        write_file(path, content, self.temporary / path.name)


def _write_all(file: FileIO, content: bytes) -> None:
    """Append bytes that are on the disk when this returns; an error may leave some of them."""
    while content:
        content = content[file.write(content) :]
    os.fsync(file.fileno())


def sequence_sha256(sequence: str) -> str:
    """The SHA-256 that names a sequence's alignment."""
    return hashlib.sha256(sequence.encode()).hexdigest()


def check_rows(found: FoundAlignment) -> None:
    """Raise RowsError unless the rows are an alignment whose query is the sequence."""
    if not found.rows or found.rows[0].text != found.sequence:
        raise RowsError("the first row is not the sequence")
    for number, row in enumerate(found.rows, 1):
        if not _ROW.fullmatch(row.text):
            letter = next(letter for letter in row.text + " " if not _ROW.fullmatch(letter))
            raise RowsError(f"row {number} has the letter {letter!r}")
        num_columns = len(_INSERTIONS.sub("", row.text))
        if num_columns != len(found.sequence):
            raise RowsError(
                f"row {number} has {num_columns} columns, the query {len(found.sequence)}"
            )


def table(rows: tuple[AlignedRow, ...]) -> bytes:
    """Rows as a gzipped `key,sequence` table, the same bytes for the same rows."""
    lines = ["key,sequence"]
    lines += [f"{UNPAIRED if i == 0 else row.key},{row.text}" for i, row in enumerate(rows)]
    return _packed("\n".join(lines) + "\n")


def _packed(text: str) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", _GZIP_LEVEL, packed, mtime=0) as file:
        file.write(text.encode())
    return packed.getvalue()


def _line(entry: StoredMsa) -> bytes:
    statistics = entry.statistics
    content = {
        "sha256": entry.sha256,
        "length": entry.length,
        "depth": statistics.depth,
        "neff": statistics.neff,
        "coverage": statistics.coverage,
        "origin": entry.origin,
        "identity": entry.identity,
        "file_sha256": entry.file_sha256,
    }
    return json.dumps(content).encode() + b"\n"


def _digest(identity: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder")
    if (folder / IDENTITY).exists():
        return
    if {path.name for path in folder.iterdir()} - {LOCK, TEMPORARY, TICKETS}:
        raise ValueError(
            f"{folder}: neither empty nor a folder of `foldcp msa`; give another --out"
        )


def _check_identity(folder: Path, identity: Mapping[str, str]) -> None:
    path = folder / IDENTITY
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        raise ValueError(f"{path}: damaged: not JSON") from None
    stored = content.get("identity") if isinstance(content, dict) else None
    if not isinstance(stored, dict):
        raise ValueError(f"{path}: damaged: not what foldcp writes")
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{folder}: a folder of format {content.get('format')}, but this version of foldcp "
            f"writes format {FORMAT}; give another --out"
        )
    names = sorted(stored.keys() | identity.keys(), key=lambda name: (name != "method", name))
    for name in names:
        if stored.get(name) != identity.get(name):
            raise ValueError(
                f"{folder}: holds alignments of another search: {name} is {stored.get(name)!r} "
                f"there and {identity.get(name)!r} here; give another --out (--msas may be "
                "repeated, so a run can read several folders)"
            )


def _take_lock(path: Path) -> IO[bytes]:
    """Lock the folder for this process; the system releases the lock when the process ends."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(f"{path.parent}: another process is writing there") from None
    return file


def _repair(index: Path) -> None:
    """Cut off a last line that was not written to its end."""
    if not index.exists():
        return
    with index.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start = end
        tail = b""
        while start and b"\n" not in tail:
            start = max(0, start - 4096)
            file.seek(start)
            tail = file.read(end - start)
        kept = start + tail.rfind(b"\n") + 1
        if kept < end:
            file.truncate(kept)
            os.fsync(file.fileno())
