"""Alignments by a local jackhmmer, with AlphaFold 2's parameters, several sequences at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from foldcp.features.msa.taxonomy import taxonomy_key
from foldcp.files import check_regular, reading
from foldcp.pipeline.msa_search.programs import (
    ProgramError,
    Programs,
    database_identity,
    find_program,
    result_of,
)
from foldcp.pipeline.msa_search.search import AlignedRow, FoundAlignment, SearchFailure
from foldcp.pipeline.msa_search.stockholm import parse_stockholm

_PARAMETERS = "-N 1 --F1 0.0005 --F2 5e-05 --F3 5e-07 --incE 0.0001 -E 0.0001"


@dataclass
class JackhmmerSearch:
    """A `Search` of a FASTA file, which must be unpacked.

    `threads` sequences are searched at the same time; 0 is one for each core.
    """

    database: Path
    threads: int = 0
    temporary: Path | None = None
    programs: Programs = field(default_factory=Programs)

    def __post_init__(self) -> None:
        self._jackhmmer = find_program("jackhmmer")
        _check_fasta(self.database)
        self.threads = self.threads or os.cpu_count() or 1
        self.batch_size = 4 * self.threads
        try:
            lines = self.programs.run([self._jackhmmer, "-h"]).splitlines()
        except ProgramError as error:
            raise ValueError(str(error)) from error
        self._version = next((line[2:] for line in lines if line.startswith("# HMMER")), "")

    @property
    def identity(self) -> Mapping[str, str]:
        """Version, database and parameters."""
        return {
            "method": "jackhmmer",
            "version": self._version,
            "database": database_identity(self.database),
            "parameters": _PARAMETERS,
        }

    def search(self, sequences: Sequence[str]) -> Iterator[FoundAlignment | SearchFailure]:
        """The alignment of each sequence, in their order."""
        pool = ThreadPoolExecutor(self.threads)
        try:
            futures = [pool.submit(self._search, sequence) for sequence in sequences]
            yield from map(result_of, futures)
        except BaseException:  # a signal: the threads wait for their programs
            self.programs.stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _search(self, sequence: str) -> FoundAlignment | SearchFailure:
        with tempfile.TemporaryDirectory(prefix="jackhmmer-", dir=self.temporary) as name:
            query = Path(name) / "query.fasta"
            query.write_text(f">query\n{sequence}\n")
            found = Path(name) / "found.sto"
            files = ["-A", found, query, self.database]
            command = [self._jackhmmer, "--noali", "--cpu", "1", "-o", os.devnull]
            try:
                self.programs.run([*command, *_PARAMETERS.split(), *files])
            except ProgramError as error:
                return SearchFailure(sequence, str(error))
            data = found.read_bytes() if found.exists() else b""
        headed = parse_stockholm(data, "jackhmmer")[1:]
        rows = [AlignedRow(row.text, taxonomy_key(row.header)) for row in headed]
        return FoundAlignment(sequence, tuple(dict.fromkeys([AlignedRow(sequence), *rows])))


def _check_fasta(path: Path) -> None:
    """Raise ValueError for a database that jackhmmer cannot read."""
    check_regular(path)
    with reading(str(path)), path.open("rb") as file:
        start = file.read(1)
    if start != b">":
        raise ValueError(f"{path}: not an unpacked FASTA file (it does not begin with >)")
