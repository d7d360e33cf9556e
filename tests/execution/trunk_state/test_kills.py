"""Real runs whose rank or driver is killed between passes, or whose rank is frozen."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from foldcp.pipeline.storage.tables import read_table
from tests.support.runs import command, folding_ranks, sequence, tables, wait_for, write_patch

SETTINGS = (
    "msa.missing=single-sequence",
    "model.steps=5",
    "model.recycling=3",
    "run.cpu_ranks=1",
    "run.deadline_floor=900",
    "run.trunk_checkpoint_seconds=0.001",
    "run.stall_floor=60",
    "run.start_deadline=300",
)

# In every process of a run: a pass through the trunk takes seconds.
SLOW_PASSES = """
def patch(module):
    forward = module.MSAModule.forward
    def slow_forward(self, *args, **kwargs):
        time.sleep(1.5)
        return forward(self, *args, **kwargs)
    module.MSAModule.forward = slow_forward
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("input")
    write_patch(folder, "foldcp.model.trunk.msa", SLOW_PASSES)
    (folder / "in.fasta").write_text(f">dimer\n{sequence(24, 1)}:{sequence(15, 2)}\n")
    return folder / "in.fasta"


def begin(source: Path, out: Path, settings: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            command(source, out, "cpu", settings=(*SETTINGS, *settings)),
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": str(source.parent)},
        )


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert begin(source, out).wait(500) == 0
    return out


def assert_identical(left: Path, right: Path) -> None:
    """Equal bit by bit."""
    expected = tables(right)
    for name, table in tables(left).items():
        pd.testing.assert_frame_equal(table, expected[name], check_exact=True)


def second_pass_is_kept(out: Path) -> bool:
    return bool(list(out.glob("trunk/*/pass2.rank0of1.json")))


@pytest.mark.parametrize("killed", ["rank", "driver"])
def test_kill_after_the_second_pass_costs_the_third(
    source: Path, undisturbed: Path, tmp_path: Path, killed: str
) -> None:
    out = tmp_path / "run"
    driver = begin(source, out)
    wait_for(lambda: second_pass_is_kept(out), driver, 500)
    if killed == "rank":
        os.kill(folding_ranks(driver)[0].pid, signal.SIGKILL)
    else:
        driver.kill()
        driver.wait()
        assert second_pass_is_kept(out)
        driver = begin(source, out)
    assert driver.wait(500) == 0
    attempts = read_table(out, "attempts").to_pandas().sort_values("started")
    expected = {"rank": ["worker_died", "done"], "driver": ["done"]}[killed]
    assert attempts["outcome"].tolist() == expected
    assert attempts["first_pass"].tolist()[-1] == 2
    assert_identical(out, undisturbed)
    assert not list(out.glob("trunk/*"))


def test_frozen_rank_is_ended_by_its_silence(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    driver = begin(source, out, ["run.stall_floor=20"])
    wait_for(lambda: list(out.glob("trunk/*/pass1.rank0of1.json")), driver, 500)
    os.kill(folding_ranks(driver)[0].pid, signal.SIGSTOP)
    assert driver.wait(500) == 0
    attempts = read_table(out, "attempts").to_pandas().sort_values("started")
    assert attempts["outcome"].tolist() == ["timeout", "done"]
    reason = attempts["reason"].tolist()[0]
    assert reason.startswith("no step for ") and "in trunk, step " in reason
    assert attempts["seconds"].tolist()[0] < 400
    assert_identical(out, undisturbed)
