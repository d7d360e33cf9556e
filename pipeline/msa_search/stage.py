"""The stage that gives every protein of an input its alignment, and resumes where it ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from tqdm import tqdm

from foldcp.complex import InvalidComplex, Record
from foldcp.pipeline.msa_search.search import (
    FoundAlignment,
    FoundPairs,
    PairSearch,
    Search,
    SearchFailure,
)
from foldcp.pipeline.msa_search.store import MsaStore, RowsError
from foldcp.printable import printable

_LINE_SECONDS = 30.0  # between two lines of progress where there is no terminal


@dataclass(frozen=True, slots=True)
class Counts:
    """How many are wanted and how many were there before this run, and the reasons of those that
    are not there after it."""

    num_wanted: int = 0
    num_stored: int = 0
    failures: tuple[SearchFailure, ...] = ()

    def __str__(self) -> str:
        num_added = self.num_wanted - self.num_stored - len(self.failures)
        counts = [
            f"{self.num_stored:,} stored before",
            f"{num_added:,} added",
            f"{len(self.failures):,} failed",
        ]
        return ", ".join(counts)


@dataclass(frozen=True, slots=True)
class MsaSummary:
    """Counts of the distinct sequences and of the paired alignments of complexes."""

    sequences: Counts
    pairs: Counts
    invalid: tuple[InvalidComplex, ...]

    @property
    def failures(self) -> tuple[SearchFailure, ...]:
        """The reasons of what has no alignment."""
        return (*self.sequences.failures, *self.pairs.failures)

    def __str__(self) -> str:
        text = f"{self.sequences.num_wanted:,} sequences, {self.sequences}"
        if self.pairs.num_wanted:
            text += f"; {self.pairs.num_wanted:,} paired alignments, {self.pairs}"
        if self.invalid:
            text += f"; {len(self.invalid):,} invalid complexes left out"
        return text


@dataclass(frozen=True, slots=True)
class Wanted:
    """The distinct sequences that need an alignment, in the order of the input, and the distinct
    sets of sequences that need a paired one."""

    sequences: tuple[str, ...]
    pairs: tuple[tuple[str, ...], ...]
    invalid: tuple[InvalidComplex, ...]


def wanted_alignments(records: Iterable[Record], only_missing: bool) -> Wanted:
    """The sequences of the proteins of valid complexes.

    `only_missing` leaves out those of chains that have an alignment or are to be folded without,
    and of complexes that have a paired one.
    """
    sequences: dict[str, None] = {}
    pairs: dict[tuple[str, ...], None] = {}
    invalid: list[InvalidComplex] = []
    for record in records:
        if isinstance(record, InvalidComplex):
            invalid.append(record)
            continue
        proteins = [chain for chain in record.chains if chain.kind == "protein"]
        for chain in proteins:
            if not (only_missing and (chain.msa or chain.single_sequence)):
                sequences[chain.sequence] = None
        distinct = tuple(sorted({chain.sequence for chain in proteins}))
        has_pairs = any(chain.paired_msa or chain.single_sequence for chain in proteins)
        if len(distinct) > 1 and not (only_missing and has_pairs):
            pairs[distinct] = None
    return Wanted(tuple(sequences), tuple(pairs), tuple(invalid))


def search_alignments(sequences: Sequence[str], search: Search, store: MsaStore) -> Counts:
    """Search the sequences that the store lacks, and store what is found.

    Raises ValueError for what the user has to mend; what was found before is stored.
    """
    missing = [sequence for sequence in sequences if sequence not in store]
    failures: list[SearchFailure] = []
    with _Progress("alignments", len(missing)) as progress:
        for found in _found(search, missing):
            failure = _add(found, store)
            failures += [failure] if failure else []
            progress.step(len(failures))
    return Counts(len(sequences), len(sequences) - len(missing), tuple(failures))


def _found(search: Search, missing: Sequence[str]) -> Iterator[FoundAlignment | SearchFailure]:
    for start in range(0, len(missing), search.batch_size):
        yield from search.search(missing[start : start + search.batch_size])


def _add(found: FoundAlignment | SearchFailure, store: MsaStore) -> SearchFailure | None:
    if isinstance(found, SearchFailure):
        return found
    try:
        store.add(found)
    except RowsError as error:
        where = f"{found.origin}: " if found.origin else ""
        return SearchFailure(found.sequence, f"{where}{error}")
    return None


def search_pairs(pairs: Sequence[Sequence[str]], search: PairSearch, store: MsaStore) -> Counts:
    """Search the paired alignments that the store lacks, and store what is found.

    Raises ValueError as `search_alignments` does.
    """
    missing = [sequences for sequences in pairs if not store.has_pairs(sequences)]
    failures: list[SearchFailure] = []
    with _Progress("paired alignments", len(missing)) as progress:
        for found in search.search_pairs(missing):
            if isinstance(found, FoundPairs):
                store.add_pairs(found)
            else:
                failures.append(found)
            progress.step(len(failures))
    return Counts(len(pairs), len(pairs) - len(missing), tuple(failures))


class _Progress:
    """A bar on a terminal, a line now and then elsewhere; on stderr."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._bar = tqdm(total=total, desc=what, disable=None, leave=False)
        self._total = total
        self._done = 0
        self._next_line = time.monotonic() + _LINE_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def step(self, num_failed: int) -> None:
        self._done += 1
        self._bar.update()
        if self._bar.disable and time.monotonic() > self._next_line:
            self._next_line = time.monotonic() + _LINE_SECONDS
            line = f"{self._what}: {self._done:,} of {self._total:,}, {num_failed:,} failed"
            print(printable(line), file=sys.stderr)
