"""Parquet files of table rows, with checksums of their pages.

A damaged file is an error, never another number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foldcp.pipeline.storage.columns.column import Column
from foldcp.pipeline.storage.schemas import Table

ARROW_TYPES = {
    "string": pa.string(),
    "list<string>": pa.list_(pa.field("element", pa.string(), nullable=False)),
    "list<int32>": pa.list_(pa.field("element", pa.int32(), nullable=False)),
    "list<float64>": pa.list_(pa.field("element", pa.float64(), nullable=False)),
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


def to_arrow(
    table: Table, parts: Sequence[Mapping[str, Sequence[Any]]], num_rows: Sequence[int]
) -> pa.Table:
    """Parts of a table, of so many rows each, as an Arrow table; columns that are missing are null.

    NaN becomes null, so that every reader skips it in a mean.
    """
    columns = []
    for column in table.columns:
        values: list[Any] = []
        for part, count in zip(parts, num_rows, strict=True):
            values += part.get(column.name) or [column.default] * count
        columns.append(_to_array(column, values))
    return pa.table(columns, schema=arrow_schema(table))


def _to_array(column: Column, values: list[Any]) -> pa.Array:
    arrow_type = ARROW_TYPES[column.type]
    if column.type == "timestamp":
        values = [datetime.fromisoformat(value) if value else None for value in values]
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
    with _writer(sink, rows.schema) as writer:
        writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
    return sink.getvalue().to_pybytes()


def write_parquet(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write a Parquet file of the rows of some tables, of which one is in memory at a time."""
    with _writer(path, schema) as writer:
        for rows in tables:
            writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)


def _writer(sink: Path | pa.NativeFile, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True)


def read_parquet(path: Path, table: Table, columns: list[str] | None = None) -> pa.Table:
    """All rows of a file of a table; columns that an earlier version did not write are null.

    Only some columns, where these are named, all of which were always written.

    Raises FileNotFoundError when it does not exist, and ValueError, naming the file, when it is
    damaged.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_columns(file, table)
            rows = file.read(columns)
            return rows if columns else _with_all_columns(rows, table)
    except FileNotFoundError:
        raise
    except DAMAGE_ERRORS as error:
        raise ValueError(f"{path}: damaged: {' '.join(str(error).split())}") from None


def rows_of_commits(rows: pa.Table, table: Table, commits: Collection[str]) -> pa.Table:
    """The rows that belong to some commits."""
    return rows.filter(_is_of_commits(table, commits))


def rows_without_commits(rows: pa.Table, table: Table, commits: Collection[str]) -> pa.Table:
    """The rows that do not belong to some commits."""
    return rows.filter(~_is_of_commits(table, commits)) if commits else rows


def _is_of_commits(table: Table, commits: Collection[str]) -> pc.Expression:
    return pc.field(table.commit_column).isin(pa.array(list(commits), pa.string()))


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
    schema = arrow_schema(table)
    written = file.schema_arrow
    names = set(written.names)
    known = [field for field in schema if field.name in names]
    is_whole = all(field.nullable or field.name in names for field in schema)
    if not (is_whole and written.equals(pa.schema(known))):
        raise ValueError(f"its columns are not those of table {table.name}")


def _with_all_columns(rows: pa.Table, table: Table) -> pa.Table:
    schema = arrow_schema(table)
    if rows.schema.names == schema.names:
        return pa.table(rows.columns, schema=schema)
    written = dict(zip(rows.schema.names, rows.columns, strict=True))
    columns = [
        written[field.name] if field.name in written else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
