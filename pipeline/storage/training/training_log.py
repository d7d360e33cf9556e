"""Log of a training run: Parquet files of steps and of validated structures."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

LOSSES = ("mse", "smooth_lddt", "distogram", "bfactor", "plddt", "pde", "resolved", "pae")
STEPS = pa.schema(
    [
        ("step", pa.int64()),
        ("time", pa.timestamp("ms", tz="UTC")),
        ("loss", pa.float32()),
        *[(name, pa.float32()) for name in LOSSES],
        ("gradient_norm", pa.float32()),
        ("learning_rate", pa.float32()),
        ("tokens", pa.int64()),
        ("seconds", pa.float32()),
        ("peak_bytes", pa.int64()),
        ("skipped", pa.bool_()),
    ]
)
VALIDATION = pa.schema(
    [
        ("step", pa.int64()),
        ("name", pa.string()),
        ("split", pa.string()),
        ("tokens", pa.int64()),
        ("lddt", pa.float32()),
        ("interface_lddt", pa.float32()),
        ("dockq", pa.float32()),
        ("irmsd", pa.float32()),
        ("tm_score", pa.float32()),
        ("confidence_score", pa.float32()),
        ("plddt", pa.float32()),
    ]
)
SCHEMAS = {"steps": STEPS, "validation": VALIDATION}
FILE = re.compile(r"(steps|validation)-(\d+)\.parquet")
Row = Mapping[str, Any]


class TrainingLog:
    """Rows of a run, written to its folder `log` when `flush` is called.

    A file is named by the first step in it. A run that goes on from an earlier step first removes
    the files that begin later, whose steps it does again.
    """

    def __init__(self, folder: Path, num_steps: int) -> None:
        self.folder = folder
        self.rows: dict[str, list[Row]] = {kind: [] for kind in SCHEMAS}
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            match = FILE.fullmatch(path.name)
            if match and int(match[2]) > num_steps:
                path.unlink()

    def add(self, kind: str, row: Row) -> None:
        """Add a row to one of the tables of `SCHEMAS`."""
        self.rows[kind].append(row)

    def flush(self) -> None:
        """Write the rows that were added since the last flush.

        Raises ValueError naming the folder when the disk is full or read-only.
        """
        for kind, rows in self.rows.items():
            if rows:
                path = self.folder / f"{kind}-{rows[0]['step']:08d}.parquet"
                temporary = path.with_suffix(".tmp")
                try:
                    pq.write_table(pa.Table.from_pylist(rows, SCHEMAS[kind]), temporary)
                    os.replace(temporary, path)
                except OSError as error:
                    raise ValueError(f"{path}: cannot be written: {error.strerror}") from None
                rows.clear()


def read_training_log(folder: Path, kind: str) -> pa.Table:
    """All rows of a table of a run's log, in the order of their steps."""
    files = sorted(folder.glob(f"{kind}-*.parquet"))
    tables = [pq.read_table(path, schema=SCHEMAS[kind]) for path in files]
    return pa.concat_tables(tables) if tables else SCHEMAS[kind].empty_table()
