"""Parquet files of table rows, with checksums of their pages.

A damaged file is an error, never another number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foldcp.pipeline.storage.columns.column import Column
from foldcp.pipeline.storage.schemas import Row, Table

ARROW_TYPES = {
    "string": pa.string(),
    "list<string>": pa.list_(pa.field("element", pa.string(), nullable=False)),
    "list<int32>": pa.list_(pa.field("element", pa.int32(), nullable=False)),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("ms", tz="UTC"),
}
ROW_GROUP_ROWS = 4_096  # what a damaged page costs at most
# What Arrow raises on a damaged file; ArrowInvalid is a ValueError and most others are OSErrors.
DAMAGE_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)


@cache
def arrow_schema(table: Table) -> pa.Schema:
    """The Arrow schema, with `description` and `unit` in the metadata of every field."""
    fields = [
        pa.field(
            column.name,
            ARROW_TYPES[column.type],
            column.nullable,
            {"description": column.description, "unit": column.unit},
        )
        for column in table.columns
    ]
    return pa.schema(fields, {"description": table.description})


def to_arrow(table: Table, rows: Sequence[Row]) -> pa.Table:
    """Rows as an Arrow table.

    NaN becomes null, so that every reader skips it in a mean; a value that a row does not give is
    the column's default.
    """
    known = {column.name for column in table.columns}
    unknown = {name for row in rows for name in row} - known
    assert not unknown, f"{table.name}: {unknown}"
    columns = [
        _to_array(column, [row.get(column.name, column.default) for row in rows])
        for column in table.columns
    ]
    return pa.table(columns, schema=arrow_schema(table))


def _to_array(column: Column, values: list[Any]) -> pa.Array:
    arrow_type = ARROW_TYPES[column.type]
    try:
        array = pa.array(values, arrow_type, from_pandas=True)
    except UnicodeEncodeError:
        array = pa.array([_escape_surrogates(value) for value in values], arrow_type)
    assert column.nullable or not array.null_count, f"column {column.name} must not be null"
    return array


def _escape_surrogates(value: str | Sequence[str] | None) -> str | list[str] | None:
    """Text that UTF-8 can encode: surrogates stand for bytes of a file name that is not UTF-8."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return [text.encode("utf-8", "backslashreplace").decode("utf-8") for text in value]


def to_parquet(rows: pa.Table) -> bytes:
    """The bytes of a Parquet file with a checksum of every page."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows,
        sink,
        compression="zstd",
        row_group_size=ROW_GROUP_ROWS,
        write_page_checksum=True,
    )
    return sink.getvalue().to_pybytes()


def read_parquet(path: Path, table: Table) -> pa.Table:
    """All rows of a file of a table; columns that an earlier version did not write are null.

    Raises FileNotFoundError when it does not exist, and ValueError, naming the file, when it is
    damaged.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_columns(file, table)
            return _with_all_columns(file.read(use_threads=False), table)  # most files are small
    except FileNotFoundError:
        raise
    except DAMAGE_ERRORS as error:
        raise ValueError(f"{path}: damaged: {' '.join(str(error).split())}") from None


def rows_of_commits(rows: pa.Table, table: Table, commits: Iterable[str]) -> pa.Table:
    """The rows that belong to some commits."""
    return rows.filter(pc.field(table.commit_column).isin(pa.array(list(commits), pa.string())))


def read_intact_groups(path: Path, table: Table) -> pa.Table:
    """The rows of the row groups of a damaged file whose pages have the right checksums.

    None of a file without a readable footer.
    """
    groups = []
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_columns(file, table)
            for number in range(file.num_row_groups):
                groups += _read_group(file, number, table)
    except DAMAGE_ERRORS:
        groups = []
    return pa.concat_tables(groups) if groups else arrow_schema(table).empty_table()


def _read_group(file: pq.ParquetFile, number: int, table: Table) -> list[pa.Table]:
    """A row group in a list, or an empty list when it is damaged."""
    try:
        rows = file.read_row_group(number, use_threads=False)
        rows.validate(full=True)
    except DAMAGE_ERRORS:
        return []
    return (
        [_with_all_columns(rows, table)]
        if rows.num_rows == file.metadata.row_group(number).num_rows
        else []
    )


def _check_columns(file: pq.ParquetFile, table: Table) -> None:
    """Raise ValueError unless all columns are there but for some that may be null."""
    written = file.schema_arrow
    known = [field for field in arrow_schema(table) if field.name in written.names]
    is_whole = all(field.nullable or field in known for field in arrow_schema(table))
    if not (is_whole and written.equals(pa.schema(known))):
        raise ValueError(f"its columns are not those of table {table.name}")


def _with_all_columns(rows: pa.Table, table: Table) -> pa.Table:
    schema = arrow_schema(table)
    columns = [
        rows[field.name] if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
