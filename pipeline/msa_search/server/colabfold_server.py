"""Alignments from a ColabFold (MMseqs2) server, which works on one batch at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from foldcp.pipeline.msa_search.search import FoundAlignment, FoundPairs, SearchFailure
from foldcp.pipeline.msa_search.server.archive import (
    FIRST_NUMBER,
    Alignments,
    DamagedArchiveError,
    join_pairs,
    merge_rows,
    read_alignments,
    read_members,
)
from foldcp.pipeline.msa_search.server.connection import (
    MIN_INTERVAL,
    Access,
    Connection,
    NotFoundError,
    ServerError,
    Waiter,
    access_from_environment,
    check_url,
)
from foldcp.pipeline.msa_search.server.tickets import Job, Tickets, is_ticket
from foldcp.pipeline.msa_search.store import MsaStore

PUBLIC_URL = "https://api.colabfold.com"  # shared by all: for some tens of sequences, not databases
MAX_BATCH = 50
Mode = Literal["env", "all"]
PairMode = Literal["pairgreedy", "paircomplete", "pairgreedy-env", "paircomplete-env"]

_SINGLE = "ticket/msa"  # where alignments of single proteins are asked for
_PAIRS = "ticket/pair"
_UNIREF = "uniref.a3m"
_ENVIRONMENTAL = "bfd.mgnify30.metaeuk30.smag30.a3m"
_PAIRED = "pair.a3m"
_MAX_ARCHIVE = 1_000_000_000  # bytes as sent
_MAX_STATUS = 1_000_000  # bytes of a ticket's status
_MAX_BUSY = 3_600.0  # seconds of rate limits or maintenance
_MAX_WORK = 6 * 3_600.0  # seconds that a ticket is waited for
_MAX_TRIES = 3  # submissions of one batch, and downloads of one result
_MAX_UNKNOWN = 3  # answers in a row that a ticket is unknown; the first may come too early
_Result = TypeVar("_Result")


@dataclass
class ColabFoldServer:
    """A `Search` by a server that speaks ColabFold's protocol of tickets.

    The ticket of a batch in flight is kept in `state_folder`, so that a rerun that wants any of its
    sequences asks for it and does not submit them again. `mode` "env" searches metagenomes besides
    UniRef, "all" does not. `sleep` and `clock` are those of `time`.

    >>> server = ColabFoldServer("https://msa.example.org", state_folder=Path("msas"))
    >>> for found in server.search(["MKTAYIAKQR"]):  # doctest: +SKIP
    ...     print(found)
    """

    url: str = PUBLIC_URL
    mode: Mode = "env"
    pair_mode: PairMode = "pairgreedy"
    state_folder: Path | None = None
    access: Access = field(default_factory=access_from_environment)
    batch_size: int = 20
    min_interval: float = MIN_INTERVAL  # seconds between two requests
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= MAX_BATCH:
            raise ValueError(f"a batch is of 1 to {MAX_BATCH} sequences, not {self.batch_size}")
        self.url = check_url(self.url)
        self._connection = Connection(
            self.url, self.access, self.min_interval, self.sleep, self.clock
        )
        self._tickets = Tickets(self.state_folder)

    @property
    def identity(self) -> Mapping[str, str]:
        """What the alignments depend on; the server does not tell the versions of its databases."""
        return {
            "method": "colabfold-server",
            "url": self.url,
            "mode": self.mode,
            "pair_mode": self.pair_mode,
        }

    def forget_stored(self, store: MsaStore) -> None:
        """Drop the tickets of which everything is stored: a run was killed before it did so."""
        for job in self._tickets.jobs():
            if job.path == _PAIRS:
                is_stored = store.has_pairs(job.sequences)
            else:
                is_stored = all(sequence in store for sequence in job.sequences)
            if is_stored:
                self._tickets.drop(job)

    def search(self, sequences: Sequence[str]) -> Iterator[FoundAlignment | SearchFailure]:
        """The alignment of each sequence: UniRef's rows, then those of metagenomes.

        Raises ValueError for a server that cannot be reached, gives no access, or is in maintenance
        or out of capacity for an hour; the ticket is kept.
        """
        missing = set(sequences)
        for job in self._tickets.jobs():  # of a run that was interrupted before it had them all
            if (job.url, job.path, job.mode) == (self.url, _SINGLE, self.mode):
                wanted = [sequence for sequence in job.sequences if sequence in missing]
                if wanted:
                    yield from self._search_batch(job, wanted)
                    missing -= set(wanted)
        rest = [sequence for sequence in dict.fromkeys(sequences) if sequence in missing]
        for start in range(0, len(rest), self.batch_size):
            batch = rest[start : start + self.batch_size]
            yield from self._search_batch(Job(self.url, _SINGLE, self.mode, tuple(batch)), batch)

    def _search_batch(
        self, job: Job, wanted: Sequence[str]
    ) -> Iterator[FoundAlignment | SearchFailure]:
        """The alignments of those sequences of a batch that are wanted."""
        names = [_UNIREF, _ENVIRONMENTAL] if self.mode == "env" else [_UNIREF]

        def read(data: bytes) -> list[Alignments]:
            members = zip(names, read_members(data, names), strict=True)
            return [read_alignments(member, name, job.sequences) for name, member in members]

        try:
            alignments = self._run(job, read)
        except ServerError as error:
            yield from (SearchFailure(sequence, str(error)) for sequence in wanted)
            return
        for sequence in wanted:
            i = job.sequences.index(sequence)
            yield FoundAlignment(sequence, merge_rows(found[i] for found in alignments))
        self._tickets.drop(job)  # the caller has them

    def search_pairs(
        self, complexes: Iterable[Sequence[str]]
    ) -> Iterator[FoundPairs | SearchFailure]:
        """The paired alignment of each complex; its chains come in the order of their sequences.

        Raises ValueError as `search` does and for fewer than two distinct sequences.
        """
        for sequences in complexes:
            queries = tuple(sorted(set(sequences)))
            if len(queries) < 2:
                raise ValueError("a paired alignment needs two distinct sequences")
            job = Job(self.url, _PAIRS, self.pair_mode, queries)
            try:
                text = self._run(job, partial(_read_pairs, queries))
            except ServerError as error:
                yield SearchFailure(":".join(queries), str(error))
                continue
            yield FoundPairs(queries, text)
            self._tickets.drop(job)  # the caller has them

    def _run(self, job: Job, read: Callable[[bytes], _Result]) -> _Result:
        """The result of a search; one that the server has forgotten is submitted again."""
        for _ in range(_MAX_TRIES):
            ticket = self._tickets.get(job)
            if not ticket:
                ticket = self._submit(job)
                self._tickets.put(job, ticket)
            try:
                self._await_completion(ticket)
                return self._download(ticket, read)
            except NotFoundError:
                self._tickets.drop(job)
            except _UnfinishedError:
                raise
            except ServerError:
                self._tickets.drop(job)
                raise
        raise ServerError(f"{self.url}: has forgotten the search {_MAX_TRIES} times")

    def _submit(self, job: Job) -> str:
        form = {"q": _fasta(job.sequences), "mode": job.mode}
        waiter = Waiter(self.sleep)
        while True:
            answer = self._ask(job.path, form)
            status = answer["status"]
            ticket = answer.get("id")
            if status in ("PENDING", "RUNNING", "COMPLETE"):
                if not is_ticket(ticket):
                    raise ServerError(f"{self.url}: gave no valid ticket")
                return str(ticket)
            self._refuse(status, answer, waiter)
            waiter.wait()

    def _await_completion(self, ticket: str) -> None:
        """Wait until a search is done. Raises NotFoundError for a ticket that is unknown."""
        work = Waiter(self.sleep, factor=1.3, longest=60.0)
        busy = Waiter(self.sleep)
        unknown = 0
        while True:
            answer = self._ask(f"ticket/{ticket}")
            status = answer["status"]
            if status == "COMPLETE":
                return
            unknown = unknown + 1 if status == "UNKNOWN" else 0
            if unknown >= _MAX_UNKNOWN:
                raise NotFoundError(f"{self.url}: does not know ticket {ticket}")
            if status in ("PENDING", "RUNNING", "UNKNOWN"):
                if work.waited > _MAX_WORK:
                    hours = _MAX_WORK / 3_600
                    raise _UnfinishedError(
                        f"{self.url}: not done after {hours:g} hours; the next run asks again"
                    )
                work.wait()
            else:
                self._refuse(status, answer, busy)
                busy.wait()

    def _download(self, ticket: str, read: Callable[[bytes], _Result]) -> _Result:
        waiter = Waiter(self.sleep)
        for attempt in range(1, _MAX_TRIES + 1):
            data = self._connection.request(f"result/download/{ticket}", _MAX_ARCHIVE)
            try:
                return read(data)
            except DamagedArchiveError as error:
                if attempt == _MAX_TRIES:
                    raise ServerError(f"{self.url}: {error}") from error
                waiter.wait()
        raise AssertionError("the last attempt returns or raises")

    def _ask(self, path: str, form: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The status that the server answers with, once it does so."""
        waiter = Waiter(self.sleep)
        for _ in range(_MAX_TRIES):
            data = self._connection.request(path, _MAX_STATUS, form)
            try:
                answer = json.loads(data)
            except (ValueError, RecursionError):
                answer = None
            if isinstance(answer, dict) and isinstance(answer.get("status"), str):
                return answer
            waiter.wait()
        raise ServerError(f"{self.url}: does not answer as a ColabFold server")

    def _refuse(self, status: str, answer: Mapping[str, Any], waiter: Waiter) -> None:
        """Raise for a status that waiting does not mend, or has not."""
        if status == "ERROR":
            told = answer.get("error") or answer.get("message") or "it gives no reason"
            raise ServerError(f"{self.url}: the search failed ({str(told)[:200]!r})")
        if status not in ("RATELIMIT", "MAINTENANCE", "UNKNOWN"):
            raise ServerError(f"{self.url}: unknown status {status[:50]!r}")
        if waiter.waited > _MAX_BUSY:
            reason = "in maintenance" if status == "MAINTENANCE" else "accepts no more searches"
            raise ValueError(
                f"server of alignments {self.url}: {reason}, for an hour now; run again later"
            )


class _UnfinishedError(ServerError):
    """A search that takes too long; its ticket is kept."""


def _fasta(sequences: Sequence[str]) -> str:
    numbered = enumerate(sequences, FIRST_NUMBER)
    return "".join(f">{number}\n{sequence}\n" for number, sequence in numbered)


def _read_pairs(queries: Sequence[str], data: bytes) -> str:
    (paired,) = read_members(data, [_PAIRED])
    return join_pairs(read_alignments(paired, _PAIRED, queries), queries)
