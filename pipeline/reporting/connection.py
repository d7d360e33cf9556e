"""DuckDB connection to the tables of a run."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from foldcp.pipeline.storage.schemas import ALL_TABLES
from foldcp.pipeline.storage.tables import read_fresh

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

VIEWS = "views.sql"


def connect(out: Path | str) -> DuckDBPyConnection:
    """An in-memory database with the tables of a run, without stale rows, and with views of them.

    The tables are those of now: a run that goes on adds no rows to them. The views are
    `complex_summary`, `best_interfaces` and `known_pairs`.

    Raises ValueError when `out` is not the folder of a run, or a file in it is damaged.

    >>> import foldcp
    >>> connection = foldcp.connect("demo-run")
    >>> best = connection.sql("SELECT name, ipsae_strict FROM best_interfaces LIMIT 10").df()
    """
    import duckdb

    connection = duckdb.connect()
    for name in ALL_TABLES:
        connection.register(name, read_fresh(out, name))
    views = resources.files("foldcp.pipeline.reporting").joinpath(VIEWS).read_text()
    connection.execute(views)
    return connection
