"""DuckDB connection to the tables of a run."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from foldcp.pipeline.storage.schemas import ALL_TABLES, INTERFACE_SCORES
from foldcp.pipeline.storage.tables import published_files, read_fresh

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

VIEWS = "views.sql"


def connect(out: Path | str) -> DuckDBPyConnection:
    """An in-memory database with the tables of a run, without stale rows, and with views of them.

    A run that is in progress adds no rows to the tables, which are those of now; the files of one
    that is over are read by each query. The views are `complex_summary`, `best_interfaces`,
    `known_pairs` and `score_correlation`.

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
    connection.execute(_correlation_view())
    return connection


def _correlation_view() -> str:
    """The view `score_correlation`: each score of `interfaces` with DockQ, over the interfaces of
    all samples that `foldcp evaluate` compared. Of both directions the better score counts.
    """
    better = {True: "min", False: "max"}
    scores = [
        f'{better["lower is better" in score.unit]}(i."{score.name}")::DOUBLE AS "{score.name}"'
        for score in INTERFACE_SCORES
    ]
    return f"""
    CREATE VIEW score_correlation AS
    WITH directed AS (
        SELECT *, chain_a AS first, chain_b AS second FROM evaluation WHERE dockq IS NOT NULL
        UNION ALL
        SELECT *, chain_b AS first, chain_a AS second FROM evaluation WHERE dockq IS NOT NULL
    ), interface AS (
        SELECT any_value(d.dockq)::DOUBLE AS dockq, {", ".join(scores)}
        FROM directed AS d JOIN interfaces AS i
        ON d.key = i.key AND d.sample = i.sample AND d.first = i.chain_a AND d.second = i.chain_b
        GROUP BY d.key, d.sample, d.chain_a, d.chain_b
    ), valued AS (
        UNPIVOT interface ON COLUMNS(* EXCLUDE dockq) INTO NAME score VALUE value
    ), ranked AS (
        SELECT *,
            rank() OVER (PARTITION BY score ORDER BY value)
                + (count(*) OVER (PARTITION BY score, value)) / 2 AS value_rank,
            rank() OVER (PARTITION BY score ORDER BY dockq)
                + (count(*) OVER (PARTITION BY score, dockq)) / 2 AS dockq_rank
        FROM valued
    )
    SELECT score, {_correlation("value", "dockq")} AS pearson,
        {_correlation("value_rank", "dockq_rank")} AS spearman, count(*) AS pairs
    FROM ranked GROUP BY score ORDER BY score
    """


def _correlation(first: str, second: str) -> str:
    """Pearson's correlation in SQL; null where a side does not vary."""
    varies = " AND ".join(f"min({side}) < max({side})" for side in (first, second))
    return f"CASE WHEN {varies} THEN corr({first}, {second}) END"
