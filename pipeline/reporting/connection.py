"""DuckDB connection to the tables of a run."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from foldcp.pipeline.storage.schemas import ALL_TABLES
from foldcp.pipeline.storage.tables import published_files, read_fresh

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

VIEWS = "views.sql"


def connect(out: Path | str) -> DuckDBPyConnection:
    """An in-memory database with the tables of a run, without stale rows, and with views of them.

    A run that is in progress adds no rows to the tables, which are those of now; the files of one
    that is over are read by each query. The views are `complex_summary`, `best_interfaces` and
    `known_pairs`.

    Raises ValueError when `out` is not the folder of a run, or a file in it is damaged.

    >>> import foldcp
    >>> connection = foldcp.connect("demo-run")
    >>> best = connection.sql("SELECT name, ipsae_strict FROM best_interfaces LIMIT 10").df()
    """
    import duckdb

    connection = duckdb.connect()
    for name, table in ALL_TABLES.items():
        paths = [str(path) for path in published_files(out, name)]
        if not paths:
            connection.register(name, read_fresh(out, name))
            continue
        rows = connection.read_parquet(paths, hive_partitioning=False)
        (rows.filter("NOT stale") if table.has("stale") else rows).create_view(name)
    views = resources.files("foldcp.pipeline.reporting").joinpath(VIEWS).read_text()
    connection.execute(views)
    return connection
