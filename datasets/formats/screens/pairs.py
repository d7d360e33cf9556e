"""Tables of pairs of proteins: a complex of two chains for each row, made as it is asked for."""

from __future__ import annotations

from collections.abc import Iterator

from foldcp.complex import InvalidComplex, Record
from foldcp.datasets.format import Format, InputFile, ReadOptions
from foldcp.datasets.formats.screens.proteins import Proteins
from foldcp.datasets.parsing.tables import Row, Table
from foldcp.datasets.sequences import read_sequences
from foldcp.datasets.subunits import check_has_sequences, with_options

# Keys of the columns; the first two that a table has count.
COLUMNS = (
    ("proteina", "proteinb"),
    ("protein1", "protein2"),
    ("bait", "prey"),
    ("id1", "id2"),
    ("a", "b"),
)
_NAME = "name"


def _recognises(file: InputFile) -> bool:
    return _columns(file.table) is not None


def _columns(table: Table) -> tuple[str, str] | None:
    return next((columns for columns in COLUMNS if set(columns) <= set(table.keys)), None)


def _read(file: InputFile, options: ReadOptions) -> Iterator[Record]:
    """A record for each row.

    Raises ValueError for a table without columns of a pair, an ambiguous or empty one, and for
    missing or bad sequences.
    """
    table = file.table
    columns = _columns(table)
    if columns is None:
        found = ", ".join(table.columns)[:200]
        raise ValueError(
            f"{file.path}: no columns of a pair (protein_a and protein_b, bait and prey, id1 and "
            f"id2, or A and B); its columns are {found!r}"
        )
    table.check(columns, [_NAME])
    if options.stoichiometry:
        raise ValueError(
            f"{options.stoichiometry}: a pair has one copy of each protein; leave out "
            "--stoichiometry"
        )
    check_has_sequences(file.path, options)
    sequences = read_sequences(options.sequences, options.max_bytes)
    accessions = (row.get(key) for row in table.rows() for key in columns)
    known = with_options(sequences, accessions, options)
    return _records(table, columns, Proteins(known, options.msas))


def _records(table: Table, columns: tuple[str, str], proteins: Proteins) -> Iterator[Record]:
    source = table.path.name
    for index, row in enumerate(table.rows()):
        accessions = [row.get(key) for key in columns]
        name = row.get(_NAME)
        try:
            _check(row, table, columns)
        except ValueError as error:
            yield InvalidComplex(name or f"row {row.number}", str(error), source=source)
            continue
        yield proteins.pair(name or "_".join(accessions), accessions, source, index)


def _check(row: Row, table: Table, columns: tuple[str, str]) -> None:
    """Raise ValueError for a damaged row, and for one without both accessions."""
    row.check_complete()
    for key in columns:
        if not row.get(key):
            column = table.columns[table.keys.index(key)]
            raise ValueError(f"row {row.number}: no accession in column {column!r}")


FORMAT = Format("pairs", "table of pairs (protein_a,protein_b)", _recognises, _read)
