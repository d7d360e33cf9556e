"""Seconds and memory of every step on a run as large as a database.

    python -m tests.support.report.bench_run
    python -m tests.support.report.bench_run --corum corum_4.1_core.tsv.gz
    python -m tests.support.report.bench_run --pairs 100000 --steps write,resume

writes a run of invented results through the store, in the shape of human CORUM (or of a screen of
pairs), and reads, queries, reports and exports it, each in a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from foldcp.datasets.parsing.text_files import read_text

HUMAN = "Human"
SAMPLES = 5
QUERY = "SELECT gene_a, gene_b, name, ipsae_strict FROM best_interfaces LIMIT 20"
NUM_COMPLEXES = 3_694
INTERFACES = "tables/interfaces/*.parquet"
MEAN = "avg(ipsae_d0res)"


def main() -> None:
    """Print a line for each step."""
    parser = argparse.ArgumentParser(description="Seconds and memory of every step.")
    parser.add_argument("--corum", type=Path, help="CORUM's table; by default sizes are made up")
    parser.add_argument("--pairs", type=int, default=0, help="dimers instead of CORUM's complexes")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--steps", default=",".join(STEPS), help="names of steps")
    parser.add_argument("--folder", type=Path, help="keep the run here, or use the one there")
    parser.add_argument("--do", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.do:
        STEPS[arguments.do](arguments)
        return
    with tempfile.TemporaryDirectory() as temporary:
        arguments.folder = arguments.folder or Path(temporary) / "run"
        for step in arguments.steps.split(","):
            _measure(step, arguments)


def _measure(step: str, arguments: argparse.Namespace) -> None:
    """Run one step in a process of its own, and print what it took."""
    command = [sys.executable, "-m", "tests.support.report.bench_run", "--do", step]
    command += ["--folder", str(arguments.folder), "--pairs", str(arguments.pairs)]
    command += ["--samples", str(arguments.samples)]
    command += ["--corum", str(arguments.corum)] if arguments.corum else []
    started = time.monotonic()
    process = os.posix_spawn(sys.executable, command, os.environ)
    _, status, used = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{step} failed")
    seconds = time.monotonic() - started
    cpu = used.ru_utime + used.ru_stime
    print(f"| {step} | {seconds:.1f} | {cpu:.1f} | {used.ru_maxrss / 1e6:.2f} |", flush=True)


def chain_counts(arguments: argparse.Namespace) -> list[int]:
    """The number of chains of every complex."""
    if arguments.pairs:
        return [2] * arguments.pairs
    if arguments.corum:
        rows = csv.DictReader(read_text(arguments.corum).splitlines(), delimiter="\t")
        subunits = [row["subunits(UniProt IDs)"] for row in rows if row["Organism"] == HUMAN]
        return [
            max(2, len({name for name in row.split(";") if name != "None"})) for row in subunits
        ]
    draw = np.random.default_rng(0)
    return np.clip(draw.lognormal(1.2, 0.85, NUM_COMPLEXES), 2, 143).astype(int).tolist()


def write(arguments: argparse.Namespace) -> None:
    """Store every complex; prints the seconds in the store alone."""
    from foldcp.pipeline.storage.store import Store
    from tests.support.report.large_run import write_dimers, write_large_run

    seconds = {"put": 0.0, "put_attempt": 0.0, "put_many": 0.0, "_merge": 0.0, "close": 0.0}
    longest = [0.0]

    def timed(name: str) -> None:
        inner = getattr(Store, name)

        def outer(*given: object, **named: object) -> object:
            started = time.process_time()
            result = inner(*given, **named)
            last = time.process_time() - started
            seconds[name] += last
            if name == "_merge":
                longest[0] = max(longest[0], last)
            return result

        setattr(Store, name, outer)

    for name in seconds:
        timed(name)
    counts = chain_counts(arguments)
    if arguments.pairs:
        write_dimers(arguments.folder, arguments.pairs, arguments.samples)
    else:
        write_large_run(arguments.folder, len(counts), 0, arguments.samples, chain_counts=counts)
    stored = sum(seconds.values()) - seconds["_merge"]
    print(
        f"{len(counts):,} complexes, {sum(n * (n - 1) for n in counts) * arguments.samples:,} rows "
        f"of interfaces: {stored:.1f} s of CPU in the store, of which {seconds['_merge']:.1f} s "
        f"merging, at most {longest[0]:.1f} s at once; {len(counts) / stored:.0f} complexes/s"
    )


def resume(arguments: argparse.Namespace) -> None:
    """Open the folder again, and close it."""
    from foldcp.pipeline.storage.store import Store
    from tests.support.synthetic_results import INFO

    store = Store.open(arguments.folder, INFO)
    print(f"{len(store.outcomes()):,} outcomes")
    store.close()


def pandas(arguments: argparse.Namespace) -> None:
    """Read the interfaces with pandas."""
    import pandas as pd

    print(f"{len(pd.read_parquet(arguments.folder / 'tables/interfaces')):,} rows")


def polars(arguments: argparse.Namespace) -> None:
    """Read the interfaces with polars."""
    import polars as pl

    print(f"{len(pl.read_parquet(arguments.folder / INTERFACES)):,} rows")


def duckdb(arguments: argparse.Namespace) -> None:
    """Read the interfaces with DuckDB, whole, and one mean of them."""
    import duckdb as db

    path = str(arguments.folder / INTERFACES)
    started = time.monotonic()
    db.execute(f"SELECT {MEAN} FROM read_parquet(?)", [path]).fetchall()
    print(f"{MEAN}: {time.monotonic() - started:.2f} s")
    rows = db.execute("SELECT * FROM read_parquet(?)", [path]).df()
    print(f"{len(rows):,} rows")


def questions(arguments: argparse.Namespace) -> None:
    """The ten questions of docs/results.md in SQL."""
    import foldcp
    from tests.reporting.test_questions import QUESTIONS

    started = time.monotonic()
    os.chdir(arguments.folder.parent)
    known = Path("CORUM-RUN")
    if not known.exists():
        known.symlink_to(arguments.folder.name)
    with foldcp.connect(arguments.folder.name) as connection:
        print(f"connect: {time.monotonic() - started:.2f} s")
        for question, sql, _ in QUESTIONS:
            started = time.monotonic()
            rows = connection.sql(sql).fetchall()
            print(f"{time.monotonic() - started:6.2f} s, {len(rows):>7,} rows: {question}")


def frames(arguments: argparse.Namespace) -> None:
    """All tables as pandas frames."""
    import foldcp

    print(f"{len(foldcp.read_run(arguments.folder).interfaces):,} rows")


def _command(*words: str | Path) -> None:
    sys.argv = ["foldcp", *map(str, words)]
    from foldcp.pipeline.cli import main as run

    try:
        run()
    except SystemExit as error:
        assert not error.code


def query(arguments: argparse.Namespace) -> None:
    """`foldcp query`."""
    _command("query", arguments.folder, QUERY)


def describe(arguments: argparse.Namespace) -> None:
    """`foldcp describe`."""
    _command("describe", "interfaces")


def report(arguments: argparse.Namespace) -> None:
    """`foldcp report`."""
    _command("report", arguments.folder)
    print(f"{(arguments.folder / 'report.html').stat().st_size / 1e6:.1f} MB")


def export(arguments: argparse.Namespace) -> None:
    """`foldcp export --to csv`."""
    folder = arguments.folder.parent / "csv"
    shutil.rmtree(folder, ignore_errors=True)
    _command("export", arguments.folder, "--to", "csv", "--out", folder)


STEPS = {
    step.__name__: step
    for step in (
        write,
        resume,
        pandas,
        polars,
        duckdb,
        questions,
        frames,
        query,
        describe,
        report,
        export,
    )
}

if __name__ == "__main__":
    main()
