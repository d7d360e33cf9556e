"""Runs through Ray on CPU ranks: whatever is killed, the tables are those of an undisturbed run."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from foldcp.complex import Chain, Complex, InvalidComplex
from foldcp.pipeline.config import load
from foldcp.pipeline.execution.monitoring.run_status import read_status
from foldcp.pipeline.execution.ray_cluster import RayConnection
from foldcp.pipeline.execution.run import Run, RunOptions, Summary
from foldcp.pipeline.inputs.tasks import Failed, Task, TaskList
from foldcp.pipeline.scheduling.hardware import PRESETS, load_hardware
from foldcp.pipeline.storage.results.pae_file import PaeFile
from foldcp.pipeline.storage.tables import read_table
from tests.support.runs import (
    assert_equal_tables,
    command,
    folding_ranks,
    num_stored,
    sequence,
    tables,
    wait_for,
)

DIMER = Complex("dimer", (Chain("A", "protein", "MKTAYI"), Chain("B", "protein", "GSHM")))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENOENT])
def test_failing_disk_stops_the_run_and_fails_no_task(tmp_path: Path, number: int) -> None:
    def fail(*_: object, keep: bool) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "file"))

    plan = SimpleNamespace(task_list=TaskList((), (), 0), config=load(), present=None)
    store = SimpleNamespace(root=tmp_path, mark_stale=fail)
    signals = SimpleNamespace(number=0)
    connection = RayConnection("", 1, verbose=False)
    run = Run(plan, store, load_hardware("cpu"), RunOptions(), connection, signals)  # type: ignore[arg-type]
    summary = run.score()
    assert summary.stopped.startswith(f"{tmp_path}/file: {os.strerror(number)}; the run resumes")
    assert summary.exit_code(False) == 75
    assert (summary.is_complete, summary.failed) == (False, ())


def test_summary_exit_code() -> None:
    failed = Failed(Task(DIMER, "key", 22, 1), 2, "a reason")
    invalid = InvalidComplex("bad", "P1: no sequence")

    def exit_code(failed: Sequence[Failed] = (), allow_invalid: bool = False, **end: Any) -> int:
        return Summary(3, tuple(failed), (invalid,), **end).exit_code(allow_invalid)

    assert Summary(3, (), ()).exit_code(allow_invalid=False) == 0
    assert exit_code() == 3
    assert exit_code(allow_invalid=True) == 0
    assert exit_code([failed]) == 1
    assert exit_code([failed], stopped="no node is left") == 75
    assert exit_code([failed], signal=15, stopped="a daemon of Ray is dead") == 143


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An input for every case.

    Five complexes for one rank, one that needs two, one that fits no group, and a record that is no
    complex.
    """
    folder = tmp_path_factory.mktemp("input")
    lengths = {
        "a": (20, 17),
        "b": (25, 14, 9),
        "c": (31,),
        "d": (16, 16),
        "e": (40, 11),
        "two": (77, 50),
        "giant": (300,),
    }
    lines = [
        f">{name}\n{':'.join(sequence(n, 100 * i + j) for j, n in enumerate(sizes))}\n"
        for i, (name, sizes) in enumerate(lengths.items())
    ]
    (folder / "in.fasta").write_text("".join(lines) + ">bad\nMK1\n")
    hardware = yaml.safe_load((PRESETS / "cpu.yaml").read_text())
    (folder / "small.yaml").write_text(
        yaml.safe_dump(hardware | {"pair_bytes_fp32": 8e6, "memory_gb": 12.0})
    )
    return folder / "in.fasta"


def score(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(source, out), capture_output=True, text=True, timeout=240)


def begin(source: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(source, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    result = score(source, out)
    assert result.returncode == 1, result.stderr  # one complex is too large
    assert "6 done, 1 failed, 1 invalid" in result.stdout
    assert "giant" in result.stderr
    return out


def test_run_stores_the_rows_of_every_complex(undisturbed: Path) -> None:
    found = tables(undisturbed)
    complexes = found["complexes"].set_index("name")
    done = dict.fromkeys(["a", "b", "c", "d", "e", "two"], "done")
    assert complexes["outcome"].to_dict() == {**done, "giant": "failed", "bad": "invalid"}
    assert complexes["group_size"]["two"] == 2
    assert "need" in complexes["reason"]["giant"]
    pairs = found["interfaces"].groupby("name").size().to_dict()
    assert pairs == {
        "a": 2,
        "b": 6,
        "d": 2,
        "e": 2,
        "two": 2,
    }  # every directed pair of different chains once
    assert found["chains"].groupby("name").size()["b"] == 3
    attempts = read_table(undisturbed, "attempts").to_pandas()
    assert attempts["outcome"].tolist() == ["done"] * 6
    assert (attempts["peak_bytes"] > 1e8).all()
    for structure in complexes["structure"].dropna():
        assert (undisturbed / structure).stat().st_size > 1000


def test_status_of_a_run_with_nothing_left_to_fold_is_its_own(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """That of a driver that was killed may lack its last results."""
    out = tmp_path / "run"
    shutil.copytree(undisturbed, out)
    before = read_status(out)
    subprocess.run([*command(source, out), "--id", "b"], check=True, timeout=240)
    status = read_status(out)
    assert before is not None and status is not None
    assert status.run_id != before.run_id
    assert (status.num_complexes, status.num_done, status.num_failed) == (1, 1, 0)
    assert (status.num_waiting, status.groups) == (0, ())


def test_killed_or_stopped_driver_resumes_with_the_same_command(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    driver = begin(source, out)
    wait_for(
        lambda: num_stored(out) >= 3, driver
    )  # besides the invalid records, stored at the start
    ranks = [
        p for p in psutil.Process(driver.pid).children(recursive=True) if "WorkerActor" in p.name()
    ]
    time.sleep(random.random())
    driver.send_signal(signal.SIGKILL)
    driver.wait(20)
    assert ranks
    assert not psutil.wait_procs(ranks, timeout=20)[1], "ranks outlive their driver"

    driver = begin(source, out)
    before = num_stored(out)
    wait_for(lambda: num_stored(out) > before or folding_ranks(driver), driver)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(60) == 128 + signal.SIGTERM

    result = score(source, out)
    assert result.returncode == 1
    assert_equal_tables(tables(out), tables(undisturbed))
    runs = read_table(out, "runs").to_pandas()
    assert runs["status"].tolist() == ["interrupted", "interrupted", "finished"]
    again = score(source, out)
    assert "6 of 7 complexes are done already" in again.stderr
    assert_equal_tables(tables(out), tables(undisturbed))


def test_killed_and_hanging_worker_cost_their_groups_and_nothing_else(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    driver = begin(source, out)
    wait_for(lambda: len(folding_ranks(driver)) == 2, driver)
    os.kill(folding_ranks(driver)[0].pid, signal.SIGKILL)  # of the group of two, which comes first
    wait_for(lambda: num_stored(out) >= 5, driver)
    wait_for(lambda: folding_ranks(driver), driver)
    os.kill(folding_ranks(driver)[0].pid, signal.SIGSTOP)
    assert driver.wait(120) == 1
    attempts = read_table(out, "attempts").to_pandas()
    assert attempts["outcome"].value_counts().to_dict() == {
        "done": 6,
        "worker_died": 1,
        "timeout": 1,
    }
    assert attempts.loc[attempts["outcome"] == "worker_died", "name"].tolist() == ["two"]
    assert "died" in attempts.loc[attempts["outcome"] == "worker_died", "reason"].item()
    assert_equal_tables(tables(out), tables(undisturbed))


def num_done(out: Path) -> int:
    """Folds that gave a result; on a busy machine others pass their deadline."""
    attempts = read_table(out, "attempts").to_pandas()
    return int((attempts["outcome"] == "done").sum())


def test_files_asked_for_later_are_made_by_folding_what_lacks_them(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """First the PAE of two complexes, one of them on two ranks, then the best pair of all."""
    out = tmp_path / "run"
    shutil.copytree(undisturbed, out)
    before = num_done(out)

    def score_with(*options: str, exit_code: int = 1) -> str:
        result = subprocess.run(
            [*command(source, out), *options], capture_output=True, text=True, timeout=240
        )
        assert result.returncode == exit_code, result.stderr  # one complex is too large
        return result.stderr

    told = score_with("--set", "write.pae=all", "--id", "b", "--id", "two", exit_code=0)
    assert "2 of 2 complexes are done already" in told
    assert "2 of them are folded again" in told and "write.pae=all (2)" in told
    found = read_table(out, "complexes").to_pandas().set_index("name")
    (out / found["pae"]["b"]).unlink()
    told = score_with("--set", "write.pae=best:1")
    assert "5 of 7 complexes are done already" in told
    assert "files of 1 results are missing or shortened" in told
    assert "4 of them are folded again" in told and "write.pae=best:1 (4)" in told
    assert "folded again" not in score_with("--set", "write.pae=best:1")
    assert num_done(out) == before + 7
    found = read_table(out, "complexes").to_pandas().set_index("name")
    with PaeFile(out / found["pae"]["two"]) as pae:
        assert pae.kept.all() and np.isfinite(pae.read(slice(None), slice(None))).all()
        mean = pae.between("A", "B").mean()
    rows = read_table(out, "interfaces").to_pandas().set_index(["name", "chain_a", "chain_b"])
    assert mean == pytest.approx(rows["pae_mean"]["two", "A", "B"], abs=0.125)
    with PaeFile(out / found["pae"]["b"]) as pae:
        assert pae.kept.all()  # as before
    after = tables(out)
    after["complexes"]["pae"] = None
    assert_equal_tables(after, tables(undisturbed))
