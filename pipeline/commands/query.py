"""The command `foldcp query`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class OutputFormat(StrEnum):
    """Formats of rows on stdout."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def query(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    sql: Annotated[
        str, typer.Argument(metavar="SQL", help="A query in DuckDB's SQL; `-` reads it from stdin.")
    ],
    format: Annotated[OutputFormat, typer.Option(help="Format of the rows.")] = OutputFormat.TABLE,
) -> None:
    """Query the tables of a run with SQL. Tables: complexes, chains, interfaces, pairs,
    protein_pairs, attempts, runs, and evaluation and evaluation_complexes of `foldcp evaluate`
    (`foldcp describe` tells their columns); views: complex_summary, best_interfaces, known_pairs,
    score_correlation. Rows of an earlier input or of other settings are left out.

    \b
    foldcp query demo-run "SELECT gene_a, gene_b, ipsae_strict FROM best_interfaces LIMIT 10"
    foldcp query demo-run "FROM complex_summary" --format csv > complexes.csv
    """
    from foldcp.pipeline.reporting.query import format_rows

    text = sys.stdin.read() if sql == "-" else sql
    print(format_rows(run, text, format.value), end="")
