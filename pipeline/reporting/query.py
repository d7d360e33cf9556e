"""Rows of a query of a run's tables, as text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from foldcp.pipeline.reporting.connection import connect
from foldcp.pipeline.reporting.formatting import format_number
from foldcp.printable import printable

MAX_CELL = 60  # characters of a cell on a terminal


def format_rows(out: Path | str, sql: str, format: str) -> str:
    """The rows of a query of a run: a table for a terminal, CSV, or JSON (a list of objects).

    Raises ValueError when `out` is not the folder of a run, the query is empty, or DuckDB
    refuses it.
    """
    import duckdb

    if not sql.strip():
        raise ValueError("the query is empty")
    with connect(out) as connection:
        try:
            found = connection.sql(sql)
            rows = found.df() if found is not None else pd.DataFrame()
        except duckdb.Error as error:
            raise ValueError(f"the query cannot be answered: {_first_line(error)}") from error
    if format == "csv":
        return rows.to_csv(index=False)
    if format == "json":
        return f"{rows.to_json(orient='records', date_format='iso')}\n"
    return format_table(rows)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


def format_table(rows: pd.DataFrame) -> str:
    """Columns of equal width, numbers to the right."""
    cells = [[printable(str(name)) for name in rows.columns]]
    cells += [[_cell(value) for value in row] for row in rows.itertuples(index=False)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    is_number = [pd.api.types.is_numeric_dtype(dtype) for dtype in rows.dtypes]
    lines = []
    for line in cells:
        padded = [
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(line, widths, is_number, strict=True)
        ]
        lines.append("  ".join(padded).rstrip() + "\n")
    return "".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else format_number(value, 3)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list) else value
    text = "" if text is None or text is pd.NaT else str(text)
    text = printable(text)
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"
