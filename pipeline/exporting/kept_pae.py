"""The whole PAE of a sample, where a run has kept it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foldcp.pipeline.exporting.run_results import Row
from foldcp.pipeline.storage.results.pae_file import PaeFile


@contextmanager
def kept_pae(run: Path, row: Row) -> Iterator[PaeFile | None]:
    """The PAE of a sample, given its row of `complexes`; None where the run has not kept it, or
    only that of some pairs of chains.

    Raises ValueError when the file is missing or damaged.
    """
    if row["pae"] is None:
        yield None
        return
    with PaeFile(run / row["pae"]) as pae:
        yield pae if pae.kept.all() else None
