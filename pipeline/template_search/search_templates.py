"""Templates of all protein sequences of an input, into a folder; a rerun searches the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from foldcp.complex import Complex, Record
from foldcp.datasets.templates import SEARCH_FILE, hits_name, hits_text
from foldcp.files import read_file, write_file
from foldcp.pipeline.msa_search.programs import (
    ProgramError,
    Programs,
    find_program,
    running_programs,
)
from foldcp.pipeline.template_search.library import (
    list_structures,
    listing_digest,
    open_library,
)
from foldcp.pipeline.template_search.mmseqs import Limits, search

_BATCH = 1_000  # sequences of one call of the program
_MAX_BYTES = 1_000_000  # of the file that describes a search


@dataclass(slots=True)
class TemplateCounts:
    """How many sequences were searched now, were there before, and have templates among both."""

    searched: int = 0
    stored: int = 0
    with_templates: int = 0


def search_templates(
    records: Iterable[Record],
    structures: Path,
    out: Path,
    limits: Limits,
    warn: Callable[[str], None],
) -> TemplateCounts:
    """Search the templates that `out` lacks, one file for each distinct protein sequence.

    Raises ValueError for limits that make no sense, for structures that cannot be listed, and for a
    folder of another search.
    """
    _check(limits)
    program = find_program("mmseqs")
    with running_programs() as programs:
        try:
            return _search(programs, program, records, structures.resolve(), out, limits, warn)
        except ProgramError as error:
            raise ValueError(str(error)) from error


def _search(
    programs: Programs,
    program: str,
    records: Iterable[Record],
    structures: Path,
    out: Path,
    limits: Limits,
    warn: Callable[[str], None],
) -> TemplateCounts:
    paths = list_structures(structures)
    identity = {
        "method": "mmseqs",
        "version": programs.run([program, "version"]).strip(),
        "structures": str(structures),
        "listing": listing_digest(structures, paths),
        **asdict(limits),
    }
    _claim(out, identity)
    sequences = list(dict.fromkeys(_protein_sequences(records)))
    missing = [sequence for sequence in sequences if not (out / hits_name(sequence)).exists()]
    counts = TemplateCounts(searched=len(missing), stored=len(sequences) - len(missing))
    if missing:
        library = open_library(out, structures, paths, warn)
        if not library:
            raise ValueError(f"{out}: the structures have no protein chains")
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            found = search(programs, program, batch, library, limits, out)
            for sequence, hits in zip(batch, found, strict=True):
                write_file(out / hits_name(sequence), hits_text(hits).encode())
    empty = hits_text([]).encode()
    for sequence in sequences:
        counts.with_templates += (out / hits_name(sequence)).read_bytes() != empty
    return counts


def _protein_sequences(records: Iterable[Record]) -> Iterator[str]:
    for record in records:
        if isinstance(record, Complex):
            for chain in record.chains:
                if chain.kind == "protein":
                    yield chain.sequence


def _check(limits: Limits) -> None:
    if limits.max_date:
        try:
            date.fromisoformat(limits.max_date)
        except ValueError as error:
            raise ValueError(f"--max-date {limits.max_date}: expected YYYY-MM-DD") from error
        if len(limits.max_date) != 10:
            raise ValueError(f"--max-date {limits.max_date}: expected YYYY-MM-DD")


def _claim(out: Path, identity: dict[str, object]) -> None:
    """Make `out` the folder of this search. Raises ValueError if it is that of another."""
    path = out / SEARCH_FILE
    if not path.exists():
        write_file(path, (json.dumps(identity, indent=2) + "\n").encode())
        return
    try:
        stored = dict(json.loads(read_file(path, _MAX_BYTES).data))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: damaged ({error})") from error
    for name in dict.fromkeys([*identity, *stored]):
        if stored.get(name) != identity.get(name):
            raise ValueError(
                f"{out}: holds templates of another search ({name} was {stored.get(name)}, now "
                f"{identity.get(name)}); give another --out"
            )
