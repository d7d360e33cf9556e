"""Writing of the tables of `foldcp evaluate`, each one file that is replaced as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from foldcp.files import write_file
from foldcp.pipeline.storage.commits.commit_file import to_columns
from foldcp.pipeline.storage.parquet import to_arrow, to_parquet
from foldcp.pipeline.storage.results.dictionary import PATH as DICTIONARY
from foldcp.pipeline.storage.results.dictionary import dictionary
from foldcp.pipeline.storage.run_folder import take_lock
from foldcp.pipeline.storage.schemas import EVALUATION, EVALUATION_COMPLEXES, Row

LOCK = ".evaluation.lock"


def evaluation_path(name: str) -> str:
    """Path of a table, relative to the run's folder."""
    return f"tables/{name}/{name}.parquet"


@contextmanager
def evaluating(root: Path) -> Iterator[None]:
    """Lock the tables for this process. Raises ValueError when another process evaluates the run,
    and when the folder cannot be written.
    """
    try:
        lock = take_lock(root / LOCK)
    except OSError as error:
        raise ValueError(f"{root}: cannot be written: {error.strerror}") from None
    with lock:
        yield


def write_evaluation(root: Path, interfaces: Sequence[Row], complexes: Sequence[Row]) -> None:
    """Replace both tables, and the dictionary, which an earlier version may have written.

    Raises ValueError naming a file that cannot be written.
    """
    tables: Mapping[str, bytes] = {
        DICTIONARY: to_parquet(dictionary()),
        **{
            evaluation_path(table.name): to_parquet(
                to_arrow(table, [to_columns(table, rows)], [len(rows)]).sort_by(
                    [(name, "ascending") for name in table.sort_columns]
                )
            )
            for table, rows in ((EVALUATION, interfaces), (EVALUATION_COMPLEXES, complexes))
        },
    }
    for path, content in tables.items():
        # Beside the folders, so that whoever reads all files of one does not meet it.
        part = root / "tables" / f".{Path(path).stem}.{os.getpid()}.part"
        write_file(root / path, content, part)
