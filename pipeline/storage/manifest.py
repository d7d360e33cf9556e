"""Which pieces of a run's folder count: receipts of single pieces of work, and the manifest of what
was merged.

    receipts/<unit>.json   one piece of work: its part of each table and its other files, with sizes
    and SHA-256 manifest.json          the merged tables, the pieces whose rows are in them, and
    which of these are stale

A piece counts when every file it names is there with its size, and so is every merged table that
holds rows of it; a receipt goes before the manifest. So a folder can be read at any moment, also
between the steps of a merge, when a piece has both.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from foldcp.files import file_sha256
from foldcp.pipeline.storage.schemas import TABLES

RECEIPTS = "receipts"
MANIFEST = "manifest.json"
T = TypeVar("T")
RETRIES = 20  # of a reader, when a merge changes the folder under its eyes


@dataclass(frozen=True, slots=True)
class File:
    """A file of the run: path relative to the folder, size in bytes, SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """A piece of work that is complete: a complex, an attempt or a run.

    `rows` counts its rows in each table, `tables` holds its part of each until it is merged. `name`
    and `settings` are those of a complex. `released` are files of a stale result which the result
    in its place may overwrite.
    """

    unit: str
    kind: str
    outcome: str
    name: str = ""
    settings: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    tables: dict[str, File] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    released: tuple[File, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """The merged tables, their published copies, and the receipts, without their parts, of the
    pieces in them.

    `stale` are results of an earlier input or of other settings; `keep_stale` says whether the
    tables show them. `running` is the invocation that the published tables do not show yet, as it
    goes on.
    """

    generation: int = 0
    tables: dict[str, File] = field(default_factory=dict)
    published: dict[str, File] = field(default_factory=dict)
    units: dict[str, CommitRecord] = field(default_factory=dict)
    stale: tuple[str, ...] = ()
    keep_stale: bool = False
    running: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What counts in a folder at one moment. `merged` are the pieces whose rows are to be read from
    the merged tables.
    """

    receipts: dict[str, CommitRecord]
    manifest: Manifest
    merged: dict[str, CommitRecord]

    @property
    def units(self) -> dict[str, CommitRecord]:
        """Every piece that counts."""
        return self.merged | self.receipts


def take_snapshot(root: Path, verify: bool = False, trusted: Collection[str] = ()) -> Snapshot:
    """Look at the folder; `verify` also compares the hash of every file, and the merged files of
    `trusted` tables are not looked at.

    Raises ValueError when the manifest is damaged.
    """
    for _ in range(RETRIES):
        before = _state(root / MANIFEST)
        snapshot = _look(root, verify, trusted)
        if _state(root / MANIFEST) == before:
            return snapshot
    raise ValueError(f"{root}: changes faster than it can be read")


def _look(root: Path, verify: bool, trusted: Collection[str]) -> Snapshot:
    """Receipts are read before the manifest, as a merge writes the manifest before it deletes
    receipts: what vanishes from the first is in the second.
    """
    receipts = {}
    for path in sorted((root / RECEIPTS).glob("*.json")):
        receipt = _read_receipt(path)
        if receipt and all(
            is_intact(root, f, verify) for f in (*receipt.tables.values(), *receipt.files)
        ):
            receipts[receipt.unit] = receipt
    manifest = read_manifest(root)
    whole = {
        name
        for name, file in manifest.tables.items()
        if name in trusted or is_intact(root, file, verify)
    }
    merged = {
        unit: receipt
        for unit, receipt in manifest.units.items()
        if unit not in receipts
        and receipt.rows.keys() <= whole
        and all(is_intact(root, file, verify) for file in receipt.files)
    }
    return Snapshot(receipts, manifest, merged)


def describe(path: str, content_at: Path) -> File:
    """The record of a file that will be called `path` and lies at `content_at` now."""
    return File(path, content_at.stat().st_size, file_sha256(content_at))


def receipt_path(unit: str) -> str:
    """Where the receipt of a piece lies."""
    return f"{RECEIPTS}/{unit}.json"


def to_json(what: CommitRecord | Manifest) -> bytes:
    """A receipt or a manifest as the bytes of its file."""
    return json.dumps(asdict(what), indent=1, sort_keys=True).encode()


def read_manifest(root: Path) -> Manifest:
    """The manifest of a folder, empty before the first merge. Raises ValueError, which names the
    file, when it is damaged.
    """
    path = root / MANIFEST
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Manifest()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: damaged ({type(error).__name__}); delete it to compute again what it lists"
        ) from None
    try:
        return Manifest(
            _typed(content["generation"], int),
            {_table(name): _file(file) for name, file in content["tables"].items()},
            {_table(name): _file(file) for name, file in content["published"].items()},
            {unit: _receipt(receipt) for unit, receipt in content["units"].items()},
            tuple(_typed(unit, str) for unit in content["stale"]),
            _typed(content["keep_stale"], bool),
            _typed(content["running"], str),
        )
    except (TypeError, KeyError, AttributeError, ValueError):
        raise ValueError(
            f"{path}: damaged: not what foldcp writes; delete it to compute again what it lists"
        ) from None


def is_intact(root: Path, file: File, verify: bool = False) -> bool:
    """Whether a file is there with its size and, with `verify`, its SHA-256."""
    path = root / file.path
    try:
        return path.stat().st_size == file.size and (not verify or file_sha256(path) == file.sha256)
    except OSError:  # it is not there, or the disk does not give it back
        return False


def _read_receipt(path: Path) -> CommitRecord | None:
    """None if it vanished or is damaged: then the piece does not count."""
    try:
        receipt = _receipt(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return receipt if receipt.unit == path.stem else None


def _receipt(content: dict[str, Any]) -> CommitRecord:
    words = (_typed(content[name], str) for name in ("unit", "kind", "outcome", "name", "settings"))
    return CommitRecord(
        *words,
        rows={_table(name): _typed(count, int) for name, count in content["rows"].items()},
        tables={_table(name): _file(file) for name, file in content["tables"].items()},
        files=tuple(map(_file, content["files"])),
        released=tuple(map(_file, content["released"])),
    )


def _table(name: str) -> str:
    if name not in TABLES:
        raise KeyError(name)
    return name


def _file(content: dict[str, Any]) -> File:
    return File(
        _typed(content["path"], str),
        _typed(content["size"], int),
        _typed(content["sha256"], str),
    )


def _typed(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise TypeError(value)
    return value


def _state(path: Path) -> tuple[int, ...]:
    """What changes whenever a file is replaced; empty when there is none."""
    try:
        about = path.stat()
    except OSError:
        return ()
    return about.st_ino, about.st_size, about.st_mtime_ns
