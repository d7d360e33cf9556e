"""Which pieces of a run's folder count: receipts of single pieces of work, and the manifest of what was merged.

    receipts/<unit>.json   one piece of work: its part of each table and its other files, with sizes and SHA-256
    manifest.json          the merged tables, and the pieces whose rows are in them

A piece counts when every file it names is there with its size; a receipt goes before the manifest. So a folder can be
read at any moment, also between the steps of a merge, when a piece has both.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RECEIPTS, MANIFEST = "receipts", "manifest.json"


@dataclass(frozen=True, slots=True)
class File:
    """A file of the run: path relative to the folder, size in bytes, SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """A piece of work that is complete: a complex, an attempt or a run. `tables` holds its part of each table."""

    unit: str
    kind: str
    outcome: str
    tables: dict[str, File] = field(default_factory=dict)
    files: tuple[File, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """The merged tables, and the receipts, without their parts, of the pieces in them."""

    generation: int = 0
    tables: dict[str, File] = field(default_factory=dict)
    units: dict[str, Receipt] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What counts in a folder at one moment. `merged` are the pieces whose rows are to be read from the merged
    tables."""

    receipts: dict[str, Receipt]
    manifest: Manifest
    merged: dict[str, Receipt]

    @property
    def units(self) -> dict[str, Receipt]:
        """Every piece that counts."""
        return self.merged | self.receipts


def take_snapshot(root: Path, verify: bool = False) -> Snapshot:
    """Look at the folder; `verify` also compares the hash of every file. Receipts are read before the manifest, as a
    merge writes the manifest before it deletes receipts: what vanishes from the first is in the second."""
    receipts = {}
    for path in sorted((root / RECEIPTS).glob("*.json")):
        receipt = _read_receipt(path)
        if receipt and all(_is_intact(root, f, verify) for f in (*receipt.tables.values(), *receipt.files)):
            receipts[receipt.unit] = receipt
    manifest = _read_manifest(root / MANIFEST)
    whole = all(_is_intact(root, file, verify) for file in manifest.tables.values())
    merged = {
        unit: receipt
        for unit, receipt in manifest.units.items()
        if whole and unit not in receipts and all(_is_intact(root, file, verify) for file in receipt.files)
    }
    return Snapshot(receipts, manifest, merged)


def describe(path: str, content_at: Path) -> File:
    """The record of a file that will be called `path` and lies at `content_at` now."""
    return File(path, content_at.stat().st_size, _sha256(content_at))


def receipt_path(unit: str) -> str:
    """Where the receipt of a piece lies."""
    return f"{RECEIPTS}/{unit}.json"


def to_json(what: Receipt | Manifest) -> bytes:
    """A receipt or a manifest as the bytes of its file."""
    return json.dumps(asdict(what), indent=1, sort_keys=True).encode()


def _read_receipt(path: Path) -> Receipt | None:
    """None if it vanished or is damaged: then the piece does not count."""
    try:
        return _receipt(json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _read_manifest(path: Path) -> Manifest:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Manifest()
    except ValueError:
        raise ValueError(f"{path}: damaged; delete it to compute again what it lists") from None
    return Manifest(
        content["generation"],
        {name: File(**file) for name, file in content["tables"].items()},
        {unit: _receipt(receipt) for unit, receipt in content["units"].items()},
    )


def _receipt(content: dict[str, Any]) -> Receipt:
    return Receipt(
        content["unit"],
        content["kind"],
        content["outcome"],
        {name: File(**file) for name, file in content["tables"].items()},
        tuple(File(**file) for file in content["files"]),
    )


def _is_intact(root: Path, file: File, verify: bool) -> bool:
    path = root / file.path
    try:
        return path.stat().st_size == file.size and (not verify or _sha256(path) == file.sha256)
    except FileNotFoundError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
