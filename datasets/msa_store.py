"""A folder of alignments that `foldcp msa` made: its layout, and its index.

One file per sequence, `<first two digits of its SHA-256>/<SHA-256>.csv.gz` in Boltz's
`key,sequence` form; a line of index.jsonl for each says how deep it is; msas.json says how all were
made. A file without a line is not part of the folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foldcp.complex import MsaStatistics
from foldcp.files import reading

IDENTITY = "msas.json"
INDEX = "index.jsonl"
SUFFIX = ".csv.gz"
FORMAT = 1  # of the folder

_FIELDS = {
    "sha256": str,
    "length": int,
    "depth": int,
    "neff": float,
    "coverage": float,
    "origin": str,
    "identity": str,
    "file_sha256": str,
}


@dataclass(frozen=True, slots=True)
class StoredMsa:
    """A line of the index: the alignment of one sequence.

    `sha256` is that of the sequence, `file_sha256` that of the file. `identity` is the digest of
    the search's identity, `origin` the file that an imported alignment came from.
    """

    sha256: str
    length: int
    statistics: MsaStatistics
    origin: str
    identity: str
    file_sha256: str


def alignment_path(folder: Path, sha256: str) -> Path:
    """The file of the sequence with this SHA-256."""
    return folder / sha256[:2] / (sha256 + SUFFIX)


def is_store(folder: Path) -> bool:
    """Whether `foldcp msa` made a folder."""
    return (folder / IDENTITY).is_file()


def read_index(folder: Path) -> Iterator[StoredMsa]:
    """The alignments of a folder; a last line that a crash has cut off does not count.

    Raises ValueError naming the file and the line, for any other line that is damaged.
    """
    path = folder / INDEX
    with reading(str(path)):
        if not path.exists():
            return
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield _stored(line, f"{path}: line {number}")


def _stored(line: bytes, location: str) -> StoredMsa:
    try:
        entry: Any = json.loads(line)
    except ValueError:
        raise ValueError(f"{location}: damaged: not JSON") from None
    if not isinstance(entry, dict):
        raise ValueError(f"{location}: damaged: not an object")
    for name, kind in _FIELDS.items():
        if type(entry.get(name)) is not kind:
            raise ValueError(f"{location}: damaged: {name} is {entry.get(name)!r}")
    statistics = MsaStatistics(entry["depth"], entry["neff"], entry["coverage"])
    return StoredMsa(
        entry["sha256"],
        entry["length"],
        statistics,
        entry["origin"],
        entry["identity"],
        entry["file_sha256"],
    )
