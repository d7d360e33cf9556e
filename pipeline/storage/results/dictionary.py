"""Dictionary of a run's tables: type, unit and meaning of every column, as a table."""

from __future__ import annotations

import pyarrow as pa

from foldcp.pipeline.storage.schemas import ALL_TABLES

PATH = "tables/dictionary.parquet"  # relative to the run's folder


def dictionary() -> pa.Table:
    """One row per column of every table, in their order."""
    rows = [
        {
            "table": table.name,
            "column": column.name,
            "type": column.type,
            "unit": column.unit,
            "nullable": column.nullable,
            "description": column.description,
        }
        for table in ALL_TABLES.values()
        for column in table.columns
    ]
    return pa.Table.from_pylist(rows)
