"""The command `foldcp describe`."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from foldcp.pipeline.storage.schemas import ALL_TABLES, Table

INDENT = 4
WIDTH = 100


def describe(
    table: Annotated[
        str, typer.Argument(metavar="[TABLE]", help="A table; without it, all are listed.")
    ] = "",
) -> None:
    """Tell what the columns of a run's tables mean, with their types and units.

    \b
    foldcp describe
    foldcp describe interfaces
    """
    if table and table not in ALL_TABLES:
        raise ValueError(f"unknown table {table!r}; known: {', '.join(ALL_TABLES)}")
    print(_columns(ALL_TABLES[table]) if table else _tables())


def _tables() -> str:
    return "\n".join(
        f"{table.name}\n{_indented(table.description)}" for table in ALL_TABLES.values()
    )


def _columns(table: Table) -> str:
    """Every column: name, type and unit, and below them the meaning."""
    lines = [textwrap.fill(table.description, WIDTH), ""]
    for column in table.columns:
        unit = f", {column.unit}" if column.unit else ""
        null = ", may be null" if column.nullable else ""
        lines.append(f"{column.name} ({column.type}{unit}{null})")
        lines.append(_indented(column.description))
    return "\n".join(lines)


def _indented(text: str) -> str:
    margin = " " * INDENT
    return textwrap.fill(text, WIDTH, initial_indent=margin, subsequent_indent=margin)
