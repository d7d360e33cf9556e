"""Rows as Parquet and back, with checksums, so that a damaged file is an error and never another
number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foldcp.pipeline.storage.schemas import Column, Row, Table

TYPES = {
    "text": pa.string(),
    "texts": pa.list_(pa.field("element", pa.string(), nullable=False)),
    "whole": pa.int64(),
    "real": pa.float32(),
    "seconds": pa.float64(),
    "flag": pa.bool_(),
    "time": pa.timestamp("ms", tz="UTC"),
}
ROW_GROUP = 4_096  # rows; what a damaged page costs at most
# What Arrow raises on a damaged file; ArrowInvalid is a ValueError and most others are OSErrors.
DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)


@cache
def arrow_schema(table: Table) -> pa.Schema:
    """The Arrow schema, with `description` and `unit` in the metadata of every field."""
    fields = [
        pa.field(
            c.name,
            TYPES[c.type],
            c.optional,
            {"description": c.description, "unit": c.unit},
        )
        for c in table.columns
    ]
    return pa.schema(fields, {"description": table.description})


def to_arrow(table: Table, rows: Sequence[Row]) -> pa.Table:
    """Rows as Arrow. NaN becomes null, so that every reader skips it in a mean; what a row leaves
    out is the column's default.
    """
    names = [column.name for column in table.columns]
    assert not (unknown := {name for row in rows for name in row} - set(names)), (
        f"{table.name}: {unknown}"
    )
    columns = [
        _column(column, [row.get(column.name, column.default) for row in rows])
        for column in table.columns
    ]
    return pa.table(columns, schema=arrow_schema(table))


def _column(column: Column, values: list[Any]) -> pa.Array:
    try:
        array = pa.array(values, TYPES[column.type], from_pandas=True)
    except UnicodeEncodeError:
        array = pa.array([_encodable(value) for value in values], TYPES[column.type])
    assert column.optional or not array.null_count, f"column {column.name} must not be empty"
    return array


def _encodable(value: str | Sequence[str] | None) -> str | list[str] | None:
    """Surrogates, which stand for bytes of a file name that is not UTF-8, as text."""
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
        row_group_size=ROW_GROUP,
        write_page_checksum=True,
    )
    return sink.getvalue().to_pybytes()


def read_parquet(path: Path, table: Table) -> pa.Table:
    """All rows of a file of a table. Raises FileNotFoundError when it is not there, and ValueError,
    which names the file, when it is damaged.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_columns(file, table)
            return file.read(use_threads=False)  # most files are small
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise ValueError(f"{path}: damaged: {' '.join(str(error).split())}") from None


def rows_of_units(rows: pa.Table, table: Table, units: Iterable[str]) -> pa.Table:
    """The rows that come from some pieces of work."""
    return rows.filter(pc.field(table.unit).isin(pa.array(list(units), pa.string())))


def read_intact_groups(path: Path, table: Table) -> pa.Table:
    """The rows of those row groups of a damaged file whose pages have the right checksums; none of
    a file without a readable footer.
    """
    groups = []
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_columns(file, table)
            for number in range(file.num_row_groups):
                groups += _read_group(file, number)
    except DAMAGE:
        groups = []
    return pa.concat_tables(groups) if groups else arrow_schema(table).empty_table()


def _read_group(file: pq.ParquetFile, number: int) -> list[pa.Table]:
    """A row group, or nothing when it is damaged."""
    try:
        rows = file.read_row_group(number, use_threads=False)
        rows.validate(full=True)
    except DAMAGE:
        return []
    return [rows] if rows.num_rows == file.metadata.row_group(number).num_rows else []


def _check_columns(file: pq.ParquetFile, table: Table) -> None:
    if not file.schema_arrow.equals(arrow_schema(table)):
        raise ValueError(f"its columns are not those of the table {table.name}")
