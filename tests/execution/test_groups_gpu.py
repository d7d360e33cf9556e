"""A run over groups of several sizes on GPUs, one rank of which is killed.

It gives the tables of a run on one GPU.

Run on a machine with several:  python -m pytest tests/execution/test_groups_gpu.py -m gpu
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

from foldcp.pipeline.scheduling.hardware import PRESETS
from foldcp.pipeline.storage.store import read_table
from tests.support.runs import (
    assert_equal_tables,
    command,
    folding_ranks,
    sequence,
    tables,
    wait_for,
)

SETTINGS = (
    "model.steps=20",
    "model.recycling=0",
    "model.precision=fp32",
    "run.cpu_ranks=4",
)
# Residues of the complexes that need so many ranks, when memory is declared as below.
LENGTHS = {1: (20, 30, 40, 50, 60, 70), 2: (92, 96, 100), 4: (146,)}


def write_input(folder: Path, lengths: dict[int, tuple[int, ...]]) -> Path:
    """Dimers, in a FASTA."""
    residues = [n for each in lengths.values() for n in each]
    lines = [f">c{n}\n{sequence(n // 2, n)}:{sequence(n - n // 2, n + 1)}\n" for n in residues]
    (folder / "in.fasta").write_text("".join(lines))
    return folder / "in.fasta"


def run_and_kill_a_rank(source: Path, out: Path, preset: str, num_ranks: int) -> None:
    """A whole run that starts many groups, the first of which loses a rank.

    The devices are declared small, and the groups to cost nothing to start.
    """
    small = yaml.safe_load((PRESETS / f"{preset}.yaml").read_text())
    small |= {"pair_bytes_fp32": 8e6, "memory_gb": 12.0, "start_seconds": 1e-6}
    (source.parent / "small.yaml").write_text(yaml.safe_dump(small))
    with open(source.parent / "log", "wb") as log:
        driver = subprocess.Popen(
            command(source, out, "", num_ranks, SETTINGS), stdout=log, stderr=log
        )
    wait_for(lambda: len(folding_ranks(driver)) >= 2, driver, seconds=300)
    os.kill(folding_ranks(driver)[0].pid, signal.SIGKILL)
    assert driver.wait(600) == 0, (source.parent / "log").read_text()


def check(source: Path, preset: str, num_ranks: int, sizes: set[int]) -> None:
    alone = source.parent / "alone"
    many = source.parent / "many"
    subprocess.run(
        command(source, alone, preset, 1, SETTINGS),
        check=True,
        capture_output=True,
        timeout=600,
    )
    run_and_kill_a_rank(source, many, preset, num_ranks)
    attempts = read_table(many, "attempts").to_pandas()
    done = attempts[attempts["outcome"] == "done"]
    assert attempts["outcome"].value_counts()["worker_died"] == 1
    assert set(done["group_size"]) == sizes
    assert (done["peak_bytes"] > 0).all()
    if preset != "cpu":
        named = done["gpus"].str.split(",")
        assert (named.str.len() == done["group_size"]).all() and (
            named.map(set).str.len() == done["group_size"]
        ).all()
    assert_equal_tables(tables(many), tables(alone))


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs 2 CUDA devices")
def test_groups_of_gpus_come_and_go(tmp_path: Path) -> None:
    num_ranks = 4 if torch.cuda.device_count() >= 4 else 2
    lengths = {size: each for size, each in LENGTHS.items() if size <= num_ranks}
    check(write_input(tmp_path, lengths), "h200", num_ranks, set(lengths))
