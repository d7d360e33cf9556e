"""Screens: pairs of all proteins of an input, or of baits with all of them, made one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from foldcp.complex import InvalidComplex, Record
from foldcp.datasets.format import InputFile, ReadOptions
from foldcp.datasets.formats.screens.proteins import Proteins
from foldcp.datasets.parsing.tables import column_key
from foldcp.datasets.parsing.text_files import read_text
from foldcp.datasets.sequences import accession_of, read_sequences
from foldcp.datasets.subunits import check_has_sequences, with_options

MAX_PAIRS = 10_000_000
# Keys of a first line that names the column of a list.
_TITLES = frozenset({"accession", "uniprot", "uniprotid", "protein", "entry", "id", "name"})


@dataclass(frozen=True, slots=True)
class _Library:
    """The names of the proteins in a file, each once, and whether it has their sequences, too."""

    path: Path
    names: tuple[str, ...]
    has_sequences: bool


def read_screen(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The pairs of a screen, after the proteins that cannot be folded, each invalid by itself.

    A pair of two baits is made once. Raises ValueError naming the file for one that is neither a
    FASTA file of single proteins nor a list of accessions, for missing sequences, and for too many
    pairs.
    """
    if options.all_against_all and options.baits:
        raise ValueError("give either --all-against-all or --baits")
    library = _read_library(path, options.max_bytes)
    baits = _read_library(options.baits, options.max_bytes) if options.baits else None
    num_pairs = len(library.names) * len((baits or library).names)
    num_pairs = num_pairs if baits else (num_pairs + len(library.names)) // 2
    if num_pairs > MAX_PAIRS:
        raise ValueError(f"{path}: {num_pairs:,} pairs exceed the maximum of {MAX_PAIRS:,}")
    named = [library, baits] if baits else [library]
    fastas = [file.path for file in named if file.has_sequences]
    if not fastas:
        check_has_sequences(path, options)
    sequences = read_sequences(dict.fromkeys((*fastas, *options.sequences)), options.max_bytes)
    names = tuple(dict.fromkeys(name for file in named for name in file.names))
    proteins = Proteins(with_options(sequences, names, options), options.msas)
    return _records(path.name, names, _pairs(library, baits, options.homodimers), proteins)


def _records(
    source: str,
    names: Sequence[str],
    pairs: Iterator[tuple[str, str]],
    proteins: Proteins,
) -> Iterator[Record]:
    invalid = {name for name in names if proteins.find(name).reason}
    for name in names:
        if name in invalid:
            yield InvalidComplex(name, proteins.find(name).reason, source=source)
    index = len(invalid)
    for pair in pairs:
        if invalid.isdisjoint(pair):
            yield proteins.pair("_".join(pair), pair, source, index)
            index += 1


def _pairs(
    library: _Library, baits: _Library | None, homodimers: bool
) -> Iterator[tuple[str, str]]:
    """The names of all pairs, those of a protein with itself only if `homodimers` says so."""
    if baits is None:
        yield from _all_pairs(library.names, homodimers)
        return
    preys = set(library.names)
    done: set[str] = set()  # baits whose pairs are made
    for bait in baits.names:
        for prey in library.names:
            is_repeated = prey in done and bait in preys
            if not is_repeated and (homodimers or prey != bait):
                yield bait, prey
        done.add(bait)


def _all_pairs(names: Sequence[str], homodimers: bool) -> Iterator[tuple[str, str]]:
    for index, first in enumerate(names):
        start = index if homodimers else index + 1
        for second in range(start, len(names)):
            yield first, names[second]


def _read_library(path: Path, max_bytes: int) -> _Library:
    if path.is_dir():
        raise ValueError(f"{path}: a folder; a screen takes a FASTA file or a list of accessions")
    file = InputFile(path, read_text(path, max_bytes))
    if not file.fasta:
        return _Library(path, tuple(dict.fromkeys(_accessions(file))), has_sequences=False)
    for record in file.fasta:
        if ":" in record.letters:
            raise ValueError(
                f"{path}: {record.header[:80]!r} has several chains; a screen takes single proteins"
            )
    names = dict.fromkeys(accession_of(record.header) for record in file.fasta)
    return _Library(path, tuple(names), has_sequences=True)


def _accessions(file: InputFile) -> Iterator[str]:
    lines = [line.strip() for line in file.text.split("\n")]
    for number, line in enumerate(lines, 1):
        if number == 1 and column_key(line) in _TITLES:
            continue
        if len(line.replace(",", " ").replace(";", " ").split()) > 1:
            raise ValueError(
                f"{file.path}: line {number}: {line[:80]!r}; a screen takes a FASTA file or a list "
                "of accessions, one on each line"
            )
        if line:
            yield line.rstrip(",;")
