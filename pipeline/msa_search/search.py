"""Search of alignments: what the stage asks of every method that makes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from foldcp.features.msa.parse import UNPAIRED


class AlignedRow(NamedTuple):
    """One row: the letters as in a3m (insertions in lower case), and its pairing key.

    The key is the NCBI taxonomy id of the sequence's organism, or `UNPAIRED`.
    """

    text: str
    key: int = UNPAIRED


@dataclass(frozen=True, slots=True)
class FoundAlignment:
    """The alignment of one sequence, the sequence itself first."""

    sequence: str
    rows: tuple[AlignedRow, ...]
    origin: str = ""  # of an imported one, the file


@dataclass(frozen=True, slots=True)
class FoundPairs:
    """The paired alignment of a complex's distinct proteins, as ColabFold's a3m of a complex."""

    sequences: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class SearchFailure:
    """A sequence without an alignment, and the reason; the next run tries again.

    Those of a paired alignment are joined by colons.
    """

    sequence: str
    reason: str


class Search(Protocol):
    """A method that makes alignments.

    `identity` says all that its results depend on: method, databases with their versions, program
    version, settings. A folder of alignments holds those of one identity.
    """

    @property
    def identity(self) -> Mapping[str, str]:
        """All that the results depend on."""
        ...

    batch_size: int  # sequences that one call of `search` is given at most

    def search(self, sequences: Sequence[str]) -> Iterator[FoundAlignment | SearchFailure]:
        """The alignment of each sequence, as they are found.

        Raises ValueError for what the user has to mend: no such database or program, no access.
        """
        ...


class PairSearch(Protocol):
    """A method that makes paired alignments."""

    def search_pairs(
        self, complexes: Iterable[Sequence[str]]
    ) -> Iterator[FoundPairs | SearchFailure]:
        """The paired alignment of each complex, given by its sequences, of which two differ.

        Raises ValueError as a `Search` does.
        """
        ...
