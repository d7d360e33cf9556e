"""Alignments that other programs have made, matched to sequences by their queries.

Recognised are folders of AlphaFold 2 and OpenFold (uniref90_hits, bfd_uniclust_hits, mgnify_hits
and uniprot_hits, .sto or .a3m) and of AlphaFold 3 and Protenix (non_pairing.a3m, pairing.a3m),
whose files become one alignment; and single files: Boltz's CSV, a3m (ColabFold's of complexes,
too), Stockholm. All may be gzipped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path

from foldcp.datasets.msa_store import is_store
from foldcp.features.msa.parse import UNPAIRED, is_csv, parse_msas
from foldcp.features.msa.taxonomy import taxonomy_key
from foldcp.files import read_file, reading
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


Alignments = dict[str, list[AlignedRow]]  # by query, the query first


@dataclass
class ImportedAlignments:
    """A `Search` in folders of alignments, each file of which is read once.

    `unreadable` are the reasons of files that were left out.
    """

    folders: tuple[Path, ...]
    batch_size: int = sys.maxsize
    unreadable: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for folder in self.folders:
            if not folder.is_dir():
                raise ValueError(f"{folder}: not a folder of alignments")

    @property
    def identity(self) -> Mapping[str, str]:
        """The method alone: each alignment's origin is in the index."""
        return {"method": "import"}

    def search(self, sequences: Sequence[str]) -> Iterator[FoundAlignment | SearchFailure]:
        """The first alignment of each sequence, in the order of the folders and their names."""
        missing = dict.fromkeys(sequences)
        for paths in chain.from_iterable(map(_groups, self.folders)):
            if not missing:
                return
            files = dict(self._readable(paths))
            found = dict.fromkeys(query for msas in files.values() for query in msas)
            for sequence in found:
                if sequence in missing:
                    del missing[sequence]
                    yield _merged(sequence, files)
        names = ", ".join(map(str, self.folders))
        for sequence in missing:
            yield SearchFailure(sequence, f"no alignment of it in {names}")

    def _readable(self, paths: Sequence[Path]) -> Iterator[tuple[Path, Alignments]]:
        for path in paths:
            try:
                yield path, _read(path)
            except ValueError as error:
                self.unreadable.append(str(error))


def _groups(folder: Path) -> Iterator[tuple[Path, ...]]:
    """The files of each alignment in a folder; of several, those of pairing first."""
    with reading(str(folder)):
        for name, folders, files in os.walk(folder):
            folders.sort()
            paths = [Path(name) / file for file in sorted(files) if _suffix(Path(file))]
            together = {_stem(path): path for path in paths if _stem(path) in _named()}
            if together:
                yield tuple(together[stem] for stem in _named() if stem in together)
            for path in paths:
                if path not in together.values() and not path.name.startswith("."):
                    yield (path,)


def _named() -> tuple[str, ...]:
    return (*_PAIRING, *_UNPAIRED_FILES)


def _suffix(path: Path) -> str:
    suffix = Path(path.name.removesuffix(".gz")).suffix
    return suffix if suffix in _SUFFIXES else ""


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _merged(sequence: str, files: Mapping[Path, Alignments]) -> FoundAlignment:
    """The rows of a group's files that align a sequence, each text once.

    Where a file of the group is for pairing, the rows of the others have no key.
    """
    paired: list[AlignedRow] = []
    rest: list[AlignedRow] = []
    has_pairing = any(_stem(path) in _PAIRING for path in files)
    for path, msas in files.items():
        rows = msas.get(sequence, [])[1:]
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
    first = next(iter(files))
    origin = str(first if len(files) == 1 else first.parent)
    return FoundAlignment(sequence, tuple(merged.values()), origin)


def _read(path: Path) -> Alignments:
    """The alignments of a file by query, the query first.

    Rows that their file pairs by number lose it: in ColabFold's alignment of a complex, and in a
    table with keys that rise from row to row, as Boltz writes what a server has paired. Such a
    number means nothing beside the alignments of other complexes.
    """
    content = read_file(path).data
    found: Alignments = {}
    with reading(f"alignment {path}"):
        if _suffix(path) == ".sto":
            headed = parse_stockholm(content, str(path))
            _add(found, [AlignedRow(row.text, taxonomy_key(row.header)) for row in headed])
            return found
        for read_rows in parse_msas(path, content):
            rows = list(read_rows())
            keys = [taxonomy_key(row.header) for row in rows]
            if is_csv(path):
                keys = [row.key for row in rows]
                if _are_row_numbers(keys) and not is_store(path.parent.parent):
                    keys = [UNPAIRED] * len(rows)
            texts = [row.text.decode("latin-1").replace(".", "") for row in rows]
            _add(found, [AlignedRow(*pair) for pair in zip(texts, keys, strict=True)])
    return found


def _add(found: Alignments, rows: list[AlignedRow]) -> None:
    """Add an alignment to those of its query."""
    if rows:
        found.setdefault(rows[0].text.replace("-", ""), []).extend(rows)


def _are_row_numbers(keys: Sequence[int]) -> bool:
    """Whether keys rise from row to row, where those of organisms come in any order and again."""
    return all(first < second for first, second in pairwise(k for k in keys if k != UNPAIRED))
