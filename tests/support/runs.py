"""Whole runs as processes: their command, their ranks, and the tables that they leave."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from foldcp.pipeline.storage.tables import read_table

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
SETTINGS = (
    "msa.missing=single-sequence",
    "model.steps=30",
    "model.recycling=0",
    "run.cpu_ranks=2",
    "run.deadline_floor=10",
    "run.deadline_factor=1",
)


# Found by every Python process that has its folder on the PYTHONPATH, as all of a run do.
SITE_CUSTOMIZE = """
import importlib.util, os, signal, sys, time

class Patcher:
    def find_spec(self, name, path=None, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def execute_and_patch(module):
            execute(module)
            patch(module)
        spec.loader.exec_module = execute_and_patch
        return spec

sys.meta_path.insert(0, Patcher())
"""


def write_patch(folder: Path, module: str, patch: str) -> None:
    """Write a sitecustomize.py with the function `patch(module)`, which the processes of a run call
    once they have loaded that module.
    """
    (folder / "sitecustomize.py").write_text(SITE_CUSTOMIZE.format(module=module) + patch)


def sequence(length: int, seed: int) -> str:
    draw = random.Random(seed)
    return "".join(draw.choice(LETTERS) for _ in range(length))


def command(
    source: Path,
    out: Path,
    hardware: str | Path = "",
    num_ranks: int = 0,
    settings: Sequence[str] = SETTINGS,
) -> list[str | Path]:
    """`foldcp score`, on devices as small.yaml beside the source declares them unless told
    otherwise.
    """
    program = "from foldcp.pipeline.cli import main; main()"
    options = [part for setting in settings for part in ("--set", setting)]
    return [
        sys.executable,
        "-c",
        program,
        "score",
        source,
        "--out",
        out,
        "--checkpoint",
        "untrained:tiny",
        "--hardware",
        hardware or source.parent / "small.yaml",
        "--gpus",
        str(num_ranks),
        *options,
    ]


def wait_for(
    condition: Callable[[], object], process: subprocess.Popen[bytes], seconds: float = 120.0
) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timeout"
        assert process.poll() is None, "the run has ended"
        time.sleep(0.02)


def num_stored(out: Path) -> int:
    """Results of complexes that are complete; attempts and runs have names with dashes."""
    return sum("-" not in path.stem for path in (out / "commits").glob("*.jsonl"))


def folding_ranks(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Ranks that are folding: Ray names a process after the method that it runs."""
    found = []
    for child in psutil.Process(driver.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "WorkerActor.fold" in child.name():
                found.append(child)
    return found


def tables(out: Path) -> dict[str, pd.DataFrame]:
    return {
        name: read_table(out, name).to_pandas() for name in ("complexes", "chains", "interfaces")
    }


def plain_values(column: pd.Series) -> list[object]:
    """Values that compare by ==: lists instead of arrays, "none" for what is missing."""
    return [
        list(value) if isinstance(value, np.ndarray) else value
        for value in column.fillna("none").tolist()
    ]


def assert_equal_tables(left: dict[str, pd.DataFrame], right: dict[str, pd.DataFrame]) -> None:
    """Equal rows; the group's size may differ, and with it the last digits."""
    for name, expected in right.items():
        left_table = left[name]
        assert len(left_table) == len(expected)
        for column in expected.columns.drop("group_size", errors="ignore"):
            if expected[column].dtype.kind == "f":
                np.testing.assert_allclose(
                    left_table[column],
                    expected[column],
                    rtol=1e-3,
                    atol=2e-3,
                    err_msg=column,
                )
            else:
                assert plain_values(left_table[column]) == plain_values(expected[column]), column


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def has_ended(pid: int) -> bool:
    """Whether a process is gone now or in a moment."""
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_running(pid)
