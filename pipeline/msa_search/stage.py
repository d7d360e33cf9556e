"""The stage that gives every protein of an input its alignment, and resumes where it ended."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tqdm import tqdm

from foldcp.complex import InvalidComplex, Record
from foldcp.pipeline.msa_search.search import Search, SearchFailure
from foldcp.pipeline.msa_search.store import MsaStore
from foldcp.printable import printable

_LINE_SECONDS = 30.0  # between two lines of progress where there is no terminal


class StoppedError(BaseException):
    """A signal has ended the stage; what is stored stays."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True, slots=True)
class MsaSummary:
    """Counts of the distinct sequences, and the reasons of those without an alignment."""

    num_sequences: int
    num_stored: int  # before this run
    num_added: int
    failures: tuple[SearchFailure, ...]
    num_invalid: int  # complexes

    def __str__(self) -> str:
        counts = [
            f"{self.num_sequences:,} sequences",
            f"{self.num_stored:,} stored before",
            f"{self.num_added:,} added",
            f"{len(self.failures):,} failed",
        ]
        if self.num_invalid:
            counts.append(f"{self.num_invalid:,} invalid complexes left out")
        return ", ".join(counts)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The distinct sequences that need an alignment, in the order of the input."""

    sequences: tuple[str, ...]
    num_invalid: int


def wanted_sequences(records: Iterable[Record], only_missing: bool) -> Wanted:
    """The sequences of the proteins of valid complexes.

    `only_missing` leaves out those of chains that have an alignment or are to be folded without.
    """
    sequences: dict[str, None] = {}
    num_invalid = 0
    for record in records:
        if isinstance(record, InvalidComplex):
            num_invalid += 1
            continue
        for chain in record.chains:
            if chain.kind == "protein" and not (
                only_missing and (chain.msa or chain.single_sequence)
            ):
                sequences[chain.sequence] = None
    return Wanted(tuple(sequences), num_invalid)


def search_alignments(wanted: Wanted, search: Search, store: MsaStore) -> MsaSummary:
    """Search the sequences that the store lacks, and store what is found.

    Raises ValueError for what the user has to mend; what was found before is stored.
    """
    missing = [sequence for sequence in wanted.sequences if sequence not in store]
    failures: list[SearchFailure] = []
    progress = _Progress(len(missing))
    for found in _found(search, missing):
        if isinstance(found, SearchFailure):
            failures.append(found)
        else:
            try:
                store.add(found)
            except ValueError as error:
                where = f"{found.origin}: " if found.origin else ""
                failures.append(SearchFailure(found.sequence, f"{where}{error}"))
        progress.step(len(failures))
    progress.close()
    return MsaSummary(
        len(wanted.sequences),
        len(wanted.sequences) - len(missing),
        len(missing) - len(failures),
        tuple(failures),
        wanted.num_invalid,
    )


def _found(search: Search, missing: Sequence[str]) -> Iterator:
    for start in range(0, len(missing), search.batch_size):
        yield from search.search(missing[start : start + search.batch_size])


class _Progress:
    """A bar on a terminal, a line now and then elsewhere; on stderr."""

    def __init__(self, total: int) -> None:
        self._bar = tqdm(total=total, desc="alignments", disable=None, leave=False)
        self._total = total
        self._done = 0
        self._next_line = time.monotonic() + _LINE_SECONDS

    def step(self, num_failed: int) -> None:
        self._done += 1
        self._bar.update()
        if self._bar.disable and time.monotonic() > self._next_line:
            self._next_line = time.monotonic() + _LINE_SECONDS
            line = f"alignments: {self._done:,} of {self._total:,}, {num_failed:,} failed"
            print(printable(line), file=sys.stderr)

    def close(self) -> None:
        self._bar.close()


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Raise StoppedError where the main thread is when SIGINT, SIGTERM or SIGHUP comes."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise StoppedError(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
