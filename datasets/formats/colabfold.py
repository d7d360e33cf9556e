"""ColabFold's CSV (id,sequence): a complex for each row, its chains joined by `:`."""

from __future__ import annotations

from collections.abc import Iterator

from foldcp.complex import InvalidComplex, Record
from foldcp.datasets.format import Format, InputFile, ReadOptions
from foldcp.datasets.formats.fasta import JoinedRecord
from foldcp.datasets.msas import MsaFolder
from foldcp.datasets.parsing.tables import Table

_COLUMNS = frozenset({"id", "sequence"})


def _recognises(file: InputFile) -> bool:
    return set(file.table.keys) >= _COLUMNS


def _read(file: InputFile, options: ReadOptions) -> Iterator[Record]:
    """The records; ValueError for an ambiguous or empty table."""
    file.table.check(_COLUMNS)
    return _records(file.table, options.msas)


def _records(table: Table, msas: MsaFolder | None) -> Iterator[Record]:
    source = table.path.name
    for row in table.rows():
        identifier = row.get("id")
        name = identifier or f"row {row.number}"
        try:
            row.check_complete()
        except ValueError as error:
            yield InvalidComplex(name, str(error), source=source)
            continue
        msa_names = (identifier,) if identifier else ()
        yield JoinedRecord(name, row.get("sequence"), source, msa_names).to_complex(msas)


FORMAT = Format("colabfold", "ColabFold CSV (id,sequence)", _recognises, _read)
