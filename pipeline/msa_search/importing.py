"""Alignments that other programs have made, matched to sequences by their queries.

Recognised are folders of AlphaFold 2 and OpenFold (uniref90_hits, bfd_uniclust_hits, mgnify_hits
and uniprot_hits, .sto or .a3m) and of AlphaFold 3 and Protenix (non_pairing.a3m, pairing.a3m),
whose files become one alignment; and single files: Boltz's CSV, a3m (ColabFold's of complexes,
too), Stockholm. All may be gzipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

from foldcp.datasets.msa_store import is_store
from foldcp.features.msa.parse import UNPAIRED, parse_msas
from foldcp.features.msa.taxonomy import taxonomy_key
from foldcp.files import read_file, reading
from foldcp.pipeline.msa_search.a3m import parse_a3m
from foldcp.pipeline.msa_search.search import AlignedRow, FoundAlignment, SearchFailure
from foldcp.pipeline.msa_search.stockholm import parse_stockholm

_SUFFIXES = (".a3m", ".sto", ".csv")
# Files that together are one alignment, those whose rows are paired first.
_PAIRING = ("uniprot_hits", "pairing")
_UNPAIRED_FILES = (
    "uniref90_hits",
    "bfd_uniclust_hits",
    "bfd_uniref_hits",
    "small_bfd_hits",
    "mgnify_hits",
    "non_pairing",
)
MAX_PAIRED = 8_192  # rows of a pairing file that come before the others


@dataclass(frozen=True, slots=True)
class _Group:
    """Files of one alignment; of several, those of pairing first."""

    paths: tuple[Path, ...]


@dataclass
class ImportedAlignments:
    """A `Search` in folders of alignments."""

    folders: tuple[Path, ...]
    batch_size: int = 1_000

    def __post_init__(self) -> None:
        self.unreadable: list[str] = []
        self._groups: dict[str, list[_Group]] = {}
        for folder in self.folders:
            if not folder.is_dir():
                raise ValueError(f"{folder}: not a folder of alignments")
            for group in _groups(folder):
                self._add(group)

    def _add(self, group: _Group) -> None:
        """Note which sequences a group aligns."""
        for path in group.paths:
            try:
                msas = _read(path)
            except ValueError as error:
                self.unreadable.append(str(error))
                continue
            for query in msas:
                known = self._groups.setdefault(query, [])
                if group not in known:
                    known.append(group)

    @property
    def identity(self) -> Mapping[str, str]:
        """The method alone: each alignment's origin is in the index."""
        return {"method": "import"}

    def search(self, sequences: Sequence[str]) -> Iterator[FoundAlignment | SearchFailure]:
        """The first alignment of each sequence, in the order of the folders and their names."""
        names = ", ".join(map(str, self.folders))
        for sequence in sequences:
            groups = self._groups.get(sequence)
            if groups is None:
                yield SearchFailure(sequence, f"no alignment of it in {names}")
                continue
            try:
                yield _merged(groups[0], sequence)
            except ValueError as error:
                yield SearchFailure(sequence, str(error))


def _groups(folder: Path) -> Iterator[_Group]:
    with reading(str(folder)):
        for name, folders, files in os.walk(folder):
            folders.sort()
            paths = [Path(name) / file for file in sorted(files) if _suffix(Path(file))]
            together = {_stem(path): path for path in paths if _stem(path) in _named()}
            if together:
                yield _Group(tuple(together[stem] for stem in _named() if stem in together))
            for path in paths:
                if path not in together.values() and not path.name.startswith("."):
                    yield _Group((path,))


def _named() -> tuple[str, ...]:
    return (*_PAIRING, *_UNPAIRED_FILES)


def _suffix(path: Path) -> str:
    suffix = Path(path.name.removesuffix(".gz")).suffix
    return suffix if suffix in _SUFFIXES else ""


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _merged(group: _Group, sequence: str) -> FoundAlignment:
    """The rows of a group's files that align a sequence, each text once.

    Where a file of the group is for pairing, the rows of the others have no key.
    """
    paired: list[AlignedRow] = []
    rest: list[AlignedRow] = []
    has_pairing = any(_stem(path) in _PAIRING for path in group.paths)
    for path in group.paths:
        rows = _read(path).get(sequence, [])[1:]
        if _stem(path) in _PAIRING:
            paired += [row for row in rows if row.key != UNPAIRED]
            rest += [row for row in rows if row.key == UNPAIRED]
        elif has_pairing:
            rest += [AlignedRow(row.text) for row in rows]
        else:
            rest += rows
    merged: dict[str, AlignedRow] = {sequence: AlignedRow(sequence)}
    ordered = chain(paired[:MAX_PAIRED], rest, paired[MAX_PAIRED:])
    for row in ordered:
        merged.setdefault(row.text, row)
    origin = str(group.paths[0] if len(group.paths) == 1 else group.paths[0].parent)
    return FoundAlignment(sequence, tuple(merged.values()), origin)


def _read(path: Path) -> dict[str, list[AlignedRow]]:
    """The alignments of a file by query, the query first."""
    content = read_file(path).data
    with reading(f"alignment {path}"):
        if _suffix(path) == ".sto":
            headed = [parse_stockholm(content, str(path))]
        elif _suffix(path) == ".csv" or len(parse_msas(path, content)) > 1:
            return _without_headers(path, content)
        else:
            headed = [parse_a3m(content, str(path))]
    found = [[AlignedRow(row.text, taxonomy_key(row.header)) for row in rows] for rows in headed]
    return {rows[0].text: rows for rows in found if rows}


def _without_headers(path: Path, content: bytes) -> dict[str, list[AlignedRow]]:
    """Alignments of a table, or of a file that holds several.

    Rows that their file pairs by number lose it: in ColabFold's alignment of a complex, and in a
    table with keys that rise from row to row, as Boltz writes what a server has paired. Such a
    number means nothing beside the alignments of other complexes.
    """
    found: dict[str, list[AlignedRow]] = {}
    for read_rows in parse_msas(path, content):
        written = list(read_rows())
        keeps_keys = _suffix(path) == ".csv" and (
            is_store(path.parent.parent) or not _are_row_numbers([row.key for row in written])
        )
        rows = [
            AlignedRow(row.text.decode("latin-1"), row.key if keeps_keys else UNPAIRED)
            for row in written
        ]
        if rows:
            found.setdefault(rows[0].text.replace("-", ""), []).extend(rows)
    return found


def _are_row_numbers(keys: Sequence[int]) -> bool:
    """Whether keys rise from row to row, where those of organisms come in any order and again."""
    return all(first < second for first, second in pairwise(k for k in keys if k != UNPAIRED))
