"""Runs that faults hit.

Ray dies, the process group is stopped, or some complexes end every group that folds them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import torch

from foldcp.checkpoint.identity import checkpoint_identity
from foldcp.pipeline.config import load
from foldcp.pipeline.execution.results import Ready
from foldcp.pipeline.execution.worker import Worker
from foldcp.pipeline.scheduling.types import Failure, WorkerConfig
from foldcp.pipeline.storage.tables import read_table
from tests.checkpoint.test_load import contents
from tests.support.runs import (
    assert_equal_tables,
    folding_ranks,
    num_stored,
    sequence,
    tables,
    wait_for,
    write_patch,
)

SETTINGS = (
    "model.steps=20",
    "model.recycling=0",
    "run.cpu_ranks=1",
    "msa.missing=single-sequence",
)
STOP_LIMIT = 20.0  # seconds from a signal to the end, on a machine that others use as well

# In every process of a run: a rank that folds a complex called bad dies.
POISON = """
def patch(module):
    fold = module.Worker.fold
    def deadly(self, complex, *args, **kwargs):
        if complex.name.startswith("bad"):
            os.kill(os.getpid(), signal.SIGKILL)
        return fold(self, complex, *args, **kwargs)
    module.Worker.fold = deadly
    fold_batch = module.Worker.fold_batch
    def deadly_batch(self, complexes, *args, **kwargs):
        if any(complex.name.startswith("bad") for complex in complexes):
            os.kill(os.getpid(), signal.SIGKILL)
        return fold_batch(self, complexes, *args, **kwargs)
    module.Worker.fold_batch = deadly_batch
"""


def write_fasta(path: Path, names: Sequence[str]) -> Path:
    """A dimer for each name, the earlier ones longer."""
    lengths = range(30 + 4 * len(names), 30, -4)
    records = [
        f">{name}\n{sequence(length, index)}:{sequence(14, 80 + index)}\n"
        for index, (name, length) in enumerate(zip(names, lengths, strict=True))
    ]
    path.write_text("".join(records))
    return path


def begin(
    source: Path, out: Path, path: str = "", settings: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """`foldcp score` in a session of its own; `path` comes first on its PYTHONPATH."""
    program = "from foldcp.pipeline.cli import main; main()"
    options = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
    command = [
        sys.executable,
        "-c",
        program,
        "score",
        source,
        "--out",
        out,
        "--checkpoint",
        "untrained:tiny",
        *options,
    ]
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": path},
        )


def processes_of(session: int) -> list[psutil.Process]:
    """The processes of a session that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found


def statuses(out: Path) -> list[str]:
    return read_table(out, "runs").to_pandas()["status"].tolist()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fasta(tmp_path_factory.mktemp("input") / "in.fasta", [f"c{i}" for i in range(6)])


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert begin(source, out).wait(240) == 0
    return out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_to_the_process_group_ends_the_run_and_all_of_ray(
    source: Path, undisturbed: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    driver = begin(source, out)
    wait_for(lambda: num_stored(out) >= 1 and folding_ranks(driver), driver)
    os.killpg(driver.pid, number)
    began = time.monotonic()
    time.sleep(0.2)
    os.killpg(driver.pid, number)  # as some batch systems do
    assert driver.wait(STOP_LIMIT) == 128 + number, f"after {time.monotonic() - began:.1f} s"
    assert not processes_of(driver.pid)
    assert statuses(out) == ["interrupted"]
    assert begin(source, out).wait(240) == 0
    assert_equal_tables(tables(out), tables(undisturbed))


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up as on Linux")
@pytest.mark.parametrize("daemon", ["gcs_server", "raylet"])
def test_run_restarts_ray_when_its_daemons_die(
    source: Path, undisturbed: Path, tmp_path: Path, daemon: str
) -> None:
    out = tmp_path / "run"
    driver = begin(source, out)
    wait_for(lambda: num_stored(out) >= 1 and folding_ranks(driver), driver)
    (victim,) = [
        child
        for child in psutil.Process(driver.pid).children(recursive=True)
        if child.name() == daemon
    ]
    victim.kill()
    assert driver.wait(240) == 0, out.with_suffix(".log").read_text()[-2000:]
    assert statuses(out) == ["interrupted", "finished"]
    assert not processes_of(driver.pid)
    assert_equal_tables(tables(out), tables(undisturbed))


def test_complexes_that_end_their_groups_fail_alone(tmp_path: Path) -> None:
    (tmp_path / "path").mkdir()
    write_patch(tmp_path / "path", "foldcp.pipeline.execution.worker", POISON)
    source = write_fasta(tmp_path / "in.fasta", ["bad1", "bad2", "good1", "good2", "good3"])
    out = tmp_path / "run"
    assert begin(source, out, str(tmp_path / "path")).wait(400) == 1
    complexes = read_table(out, "complexes").to_pandas().set_index("name")
    failed = {
        "bad1": "failed",
        "bad2": "failed",
        "good1": "done",
        "good2": "done",
        "good3": "done",
    }
    assert complexes["outcome"].to_dict() == failed
    attempts = read_table(out, "attempts").to_pandas()
    died = attempts[attempts["outcome"] == "worker_died"]
    assert died["name"].value_counts().to_dict() == {"bad1": 2, "bad2": 2}
    assert attempts["outcome"].value_counts().to_dict() == {"worker_died": 4, "done": 3}
    assert statuses(out) == ["finished"]


def test_batches_give_the_same_results_and_resume(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    driver = begin(source, out, settings=["run.batch=3"])
    wait_for(lambda: num_stored(out) >= 1 and folding_ranks(driver), driver)
    os.killpg(driver.pid, signal.SIGTERM)
    assert driver.wait(STOP_LIMIT) == 128 + signal.SIGTERM
    assert begin(source, out, settings=["run.batch=3"]).wait(240) == 0
    assert_equal_tables(tables(out), tables(undisturbed))
    attempts = read_table(out, "attempts").to_pandas()
    done = attempts[attempts["outcome"] == "done"]
    assert sorted(done["name"]) == [f"c{number}" for number in range(6)]
    assert done["batch"].max() > 1
    assert (done["seconds_trunk"] > 0).all()


def test_a_batch_that_ends_its_group_costs_the_others_nothing(tmp_path: Path) -> None:
    (tmp_path / "path").mkdir()
    write_patch(tmp_path / "path", "foldcp.pipeline.execution.worker", POISON)
    source = write_fasta(tmp_path / "in.fasta", ["bad", "good1", "good2", "good3"])
    out = tmp_path / "run"
    settings = ["run.batch=3", "run.retries=0"]  # a member would fail, were it to blame
    assert begin(source, out, str(tmp_path / "path"), settings).wait(400) == 1
    complexes = read_table(out, "complexes").to_pandas().set_index("name")
    assert complexes["outcome"].to_dict() == {
        "bad": "failed",
        "good1": "done",
        "good2": "done",
        "good3": "done",
    }
    attempts = read_table(out, "attempts").to_pandas()
    died = attempts[attempts["outcome"] == "worker_died"]
    assert died[died["batch"] > 1]["name"].nunique() == died["batch"].max()
    assert died[died["batch"] == 1]["name"].tolist() == ["bad"]


def test_join_refuses_weights_that_have_changed_since_the_run_began(tmp_path: Path) -> None:
    checkpoint = tmp_path / "weights.ckpt"
    other = tmp_path / "other.ckpt"
    torch.save(contents(), checkpoint)
    torch.save(contents(), other)
    other.write_bytes(other.read_bytes() + b"more")
    expected = checkpoint_identity(checkpoint)
    worker_config = WorkerConfig(str(checkpoint), expected, "fp32", load(), 1)
    assert isinstance(Worker(worker_config).join(0, 1, ""), Ready)
    other.replace(checkpoint)
    reason = f"{checkpoint}: the weights have changed since the run began"
    assert Worker(worker_config).join(0, 1, "") == Failure("invalid", reason)
