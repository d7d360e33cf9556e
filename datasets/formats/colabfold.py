"""ColabFold's CSV (id,sequence): a complex for each row, its chains joined by `:`.

A column a3mpath names alignments; those that templatepath names are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from foldcp.complex import InvalidComplex, Record
from foldcp.datasets.format import Format, InputFile, ReadOptions
from foldcp.datasets.formats.fasta import JoinedRecord
from foldcp.datasets.parsing.strict_yaml import existing_file
from foldcp.datasets.parsing.tables import Row, Table
from foldcp.features.msa.parse import check_name

_COLUMNS = frozenset({"id", "sequence"})
_OPTIONAL = frozenset({"a3mpath", "templatepath"})


def _recognises(file: InputFile) -> bool:
    return set(file.table.keys) >= _COLUMNS


def _read(file: InputFile, options: ReadOptions) -> Iterator[Record]:
    """The records; ValueError for an ambiguous or empty table."""
    file.table.check(_COLUMNS, _OPTIONAL)
    return _records(file.table, options)


def _records(table: Table, options: ReadOptions) -> Iterator[Record]:
    for row in table.rows():
        name = row.get("id") or f"row {row.number}"
        try:
            row.check_complete()
            record = _joined(table.path, row, name, options)
        except ValueError as error:
            yield InvalidComplex(name, str(error), source=table.path.name)
        else:
            yield record.to_complex(options.msas)


def _joined(path: Path, row: Row, name: str, options: ReadOptions) -> JoinedRecord:
    """A row, whose alignment may be a file. Raises ValueError where there is no such file."""
    if "\n" in name:
        raise ValueError(f"row {row.number}: a line end in the id: the quotes may not match")
    written = row.get("a3mpath")
    msa = None
    if written:
        outside = options.allow_outside
        msa = existing_file(written, "a3mpath", path.parent, allow_outside=outside)
        check_name(msa)
    templates = row.get("templatepath")
    notes = (f"templates: templatepath {templates!r} is not read",) if templates else ()
    return JoinedRecord(
        name=name,
        sequence=row.get("sequence"),
        source=path.name,
        msa_names=tuple(filter(None, (row.get("id"),))),
        msa=msa,
        notes=notes,
    )


FORMAT = Format("colabfold", "ColabFold CSV of id,sequence", _recognises, _read)
