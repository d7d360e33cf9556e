"""What the user names, and the complexes in it. No torch here."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from foldcp.complex import Complex, Record
from foldcp.datasets.formats.fasta import FOLDED_ALONE
from foldcp.datasets.reader import read
from foldcp.files import MAX_BYTES
from foldcp.pipeline.fetch import find_weights


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What the user names."""

    input: Path
    sequences: Path | None = None
    msas: Path | None = None
    checkpoint: str = ""
    organism: str = ""
    limit: int = 0
    max_bytes: int = MAX_BYTES  # of the input and of the sequences, unpacked

    def __post_init__(self) -> None:
        """Fetched weights may be named: `boltz2` stands for their path. ValueError when they are
        not there.
        """
        object.__setattr__(self, "checkpoint", find_weights(self.checkpoint))


def records(sources: InputSpec, left_out: set[str] | None = None) -> Iterator[Record]:
    """The records of the input; ValueError when there are none. The names of those of other
    organisms go to `left_out`.
    """
    found = read(sources.input, sources.sequences, sources.msas, sources.max_bytes)
    if sources.organism:
        found = _of_organism(found, sources.organism, set() if left_out is None else left_out)
    first = next(found, None)
    if first is None:
        of = f" of organism {sources.organism!r}" if sources.organism else ""
        raise ValueError(f"{sources.input}: no complex{of}")
    return itertools.chain([first], found)


def _of_organism(found: Iterable[Record], organism: str, left_out: set[str]) -> Iterator[Record]:
    wanted = organism.strip().lower()
    for record in found:
        if record.organism.strip().lower().startswith(wanted):
            yield record
        else:
            left_out.add(record.name)


def only_complex(sources: InputSpec) -> Complex:
    """The one complex of an input."""
    found = list(itertools.islice(records(sources), 2))
    if len(found) > 1:
        alone = any(
            isinstance(record, Complex) and FOLDED_ALONE in record.notes for record in found
        )
        joined = "; the chains of one complex are joined by ':'" if alone else ""
        raise ValueError(
            f"{sources.input}: holds several complexes; `foldcp score` folds them{joined}"
        )
    if not isinstance(found[0], Complex):
        raise ValueError(f"{sources.input}: {found[0].name}: {found[0].reason}")
    return found[0]
