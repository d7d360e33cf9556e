"""Training on the ranks of a Ray cluster: the losses of one process, whatever is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from foldcp.pipeline.cli import app
from foldcp.pipeline.execution.ranks import shared_paths
from foldcp.pipeline.execution.ray_cluster import Node
from foldcp.pipeline.scheduling.placement import Placement
from foldcp.pipeline.scheduling.types import Failure
from foldcp.pipeline.storage.training.training_log import read_training_log
from foldcp.pipeline.training import cluster as module
from foldcp.pipeline.training.cluster import ClusterRun, fitting_ranks, why_not
from foldcp.pipeline.training.settings_file import TrainFile
from foldcp.pipeline.training_data.prepare import PrepareSettings, prepare
from foldcp.training.loop.checkpoints import checkpoint_name, newest_step
from foldcp.training.loop.settings import checkpoint_folder
from tests.chaos.cluster import ChaosCluster, title, with_descendants
from tests.training.data.mmcif import single_protein

ALLOWED = 1e-5
STEPS = 16


@pytest.fixture(scope="module")
def cluster() -> Iterator[ChaosCluster]:
    made = ChaosCluster()
    yield made
    made.close()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for number in range(2):
        single_protein("MKDAYIAFQRCHW"[: 6 + number]).write(folder / f"in/s{number}.cif")
    prepare(folder / "in", folder / "out", PrepareSettings())
    return folder / "out"


def arguments(prepared: Path, out: Path, *options: str) -> list[str]:
    keys = [
        "model.init=untrained:tiny", f"data.folder={prepared}", "data.workers=0",
        "step.multiplicity=1", "step.weights.confidence=0", "step.recycling=0",
        "step.checkpointing=none", "optimizer.warmup_steps=10", "examples_per_step=4",
        f"max_steps={STEPS}", "log.every=1", "log.tensorboard=false", "checkpoint.every=2",
    ]  # fmt: skip
    return ["train", "--out", str(out), *(word for k in keys for word in ("--set", k)), *options]


def train(prepared: Path, out: Path, *options: str) -> Result:
    return CliRunner().invoke(app, arguments(prepared, out, *options))


def losses(out: Path) -> list[float]:
    rows = read_training_log(out / "log", "steps").to_pylist()
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


@pytest.fixture(scope="module")
def expected(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of one process."""
    out = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_WORLD_SIZE", str(os.cpu_count()))  # with one thread
        assert train(prepared, out).exit_code == 0
    return losses(out)


@contextmanager
def after_step(out: Path, step: int, action: Callable[[], object]) -> Iterator[None]:
    """Act once a checkpoint of that step is there."""

    def wait() -> None:
        end = time.monotonic() + 120
        while newest_step(checkpoint_folder(out)) < step and time.monotonic() < end:
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def test_a_killed_rank_begins_the_run_again_with_the_same_losses(
    cluster: ChaosCluster, prepared: Path, expected: list[float], tmp_path: Path
) -> None:
    def kill() -> None:
        ranks = [x for x in with_descendants(cluster.processes()) if "RankActor" in title(x)]
        assert len(ranks) == 2
        ranks[0].kill()

    cluster.set_nodes(1)
    with after_step(tmp_path, 4, kill):
        done = train(prepared, tmp_path, "--address", cluster.address)
    assert done.exit_code == 0, done.output
    assert "rank" in done.stderr and "died" in done.stderr
    assert done.stderr.count("foldcp: training on") == 2
    assert f"step {STEPS}: loss" in done.stdout
    assert f"finished after {STEPS} steps in all" in done.stdout
    assert losses(tmp_path) == pytest.approx(expected, rel=ALLOWED)


def test_a_lost_node_leaves_fewer_ranks_and_the_same_losses(
    cluster: ChaosCluster, prepared: Path, expected: list[float], tmp_path: Path
) -> None:
    cluster.set_nodes(2)
    with after_step(tmp_path, 4, lambda: cluster.lose_node("kill_node")):
        done = train(prepared, tmp_path, "--address", cluster.address, "--gpus", "4")
    assert done.exit_code == 0, done.output
    assert "4 x 1 ranks on cpu" in done.stdout and "2 x 1 ranks on cpu" in done.stdout
    assert losses(tmp_path) == pytest.approx(expected, rel=ALLOWED)


def test_sigterm_leaves_a_checkpoint_and_exit_code_75(
    cluster: ChaosCluster, prepared: Path, expected: list[float], tmp_path: Path
) -> None:
    cluster.set_nodes(1)
    words = arguments(prepared, tmp_path, "--address", cluster.address, "--max-steps", "100000")
    with subprocess.Popen(
        [sys.executable, "-m", "foldcp", *words, "--set", "checkpoint.every=100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            assert process.stdout is not None
            while "step 1:" not in (line := process.stdout.readline()):
                assert line, process.communicate()
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 75, errors
    assert "SIGTERM: stopping after this step" in errors
    done = newest_step(checkpoint_folder(tmp_path))
    assert f"stopped after {done} steps in all" in output
    found = losses(tmp_path)
    assert len(found) == done >= 1
    compared = min(done, STEPS)
    assert found[:compared] == pytest.approx(expected[:compared], rel=ALLOWED)


def test_nodes_that_do_not_see_the_files_are_named_before_anything_starts(
    cluster: ChaosCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What marks the run's folder is elsewhere, as for a node with another folder at its path."""
    cluster.set_nodes(1)
    (tmp_path / "other").mkdir()

    class ElsewhereAndGone:
        def __init__(self, dir: Path, prefix: str) -> None:
            self.name = str(dir / prefix)

        def __enter__(self) -> ElsewhereAndGone:
            return self

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(shared_paths, "NamedTemporaryFile", ElsewhereAndGone)
    monkeypatch.setattr(ClusterRun, "_attempt", lambda *_: pytest.fail("it starts"))
    out = tmp_path / "run"
    done = train(tmp_path / "data", out, "--address", cluster.address)
    host = os.uname().nodename
    message = f"{out}: not there on {host}; {tmp_path / 'data'}: not there on {host}: every node"
    assert str(done.exception).startswith(message), done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--address", "127.0.0.1:1"), "--address 127.0.0.1:1: no Ray cluster answers there"),
        (("--gpus", "2"), "--gpus 2: needs --address; without a Ray cluster, torchrun"),
    ],
)
def test_options_that_name_no_cluster_are_refused(
    options: tuple[str, str], message: str, tmp_path: Path
) -> None:
    error = train(tmp_path, tmp_path / "run", *options).exception
    assert isinstance(error, ValueError)
    assert str(error).startswith(message)


@pytest.mark.parametrize(
    ("available", "examples", "size", "fitting", "reason"),
    [
        (8, 128, 1, 8, ""),
        (7, 128, 1, 4, "examples_per_step=128 does not divide among 7 groups of context_parallel"),
        (7, 6, 2, 6, "7 ranks do not divide into groups of context_parallel=2"),
        (3, 8, 4, 0, "3 ranks do not divide into groups of context_parallel=4"),
    ],
)
def test_fitting_ranks_divide_the_examples_among_whole_groups(
    available: int, examples: int, size: int, fitting: int, reason: str
) -> None:
    settings = TrainFile(examples_per_step=examples, context_parallel=size)
    assert fitting_ranks(available, settings) == fitting
    if reason:
        assert why_not(available, settings).startswith(reason)


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """GPUs of the nodes of a cluster that is made up, and sees all files."""
    gpus: list[int] = []
    monkeypatch.setattr(
        module,
        "alive_nodes",
        lambda: [Node(f"n{i}", f"host{i}", 64, count) for i, count in enumerate(gpus)],
    )
    monkeypatch.setattr(module, "check_shared", lambda *_: None)
    return gpus


def run_of(out: Path, gpus: int = 0, **settings: int) -> ClusterRun:
    return ClusterRun(TrainFile(**settings), out, gpus, lambda: False)  # type: ignore[arg-type]


def test_ranks_that_do_not_fit_are_said_at_the_start(
    without_ray: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without_ray[:] = [4, 3]
    with pytest.raises(ValueError, match="--gpus 8: the cluster has 7"):
        run_of(tmp_path, 8)._first_placement()
    with pytest.raises(ValueError, match=r"--gpus 6: examples_per_step=8 does not .*; 4 would fit"):
        run_of(tmp_path, 6, examples_per_step=8)._first_placement()
    with pytest.raises(ValueError, match="context_parallel=8 needs 8 ranks, and the cluster has 7"):
        run_of(tmp_path, context_parallel=8)._first_placement()
    assert run_of(tmp_path, examples_per_step=6)._first_placement() == (("n0", 4), ("n1", 2))
    assert "1 ranks stay idle: examples_per_step=6 does not" in capsys.readouterr().err


def test_ranks_that_fail_again_and_again_end_the_run(
    without_ray: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    without_ray[:] = [4, 4]
    folder = checkpoint_folder(tmp_path)
    folder.mkdir()
    placements: list[object] = []

    def attempt(self: ClusterRun, number: int, placement: Placement, seconds: float) -> Failure:
        placements.append(placement)
        if number == 2:  # that one makes progress, and loses a node
            (folder / checkpoint_name(7)).touch()
            without_ray.pop()
        return Failure("worker_died", "rank 1 died", node="n0")

    monkeypatch.setattr(ClusterRun, "_attempt", attempt)
    assert run_of(tmp_path, examples_per_step=8).train(60.0) == 1
    assert placements == 3 * [(("n0", 4), ("n1", 4))] + 3 * [(("n0", 4),)]
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "foldcp: host0: rank 1 died; 4 failures in a row without a new checkpoint"


@pytest.mark.parametrize(("num_no_room", "exit_code", "num_tries"), [(9, 0, 10), (99, 75, 10)])
def test_training_waits_for_gpus_that_ray_does_not_give(
    without_ray: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_no_room: int,
    exit_code: int,
    num_tries: int,
) -> None:
    without_ray[:] = [4, 4]
    tries: list[int] = []

    def attempt(*arguments: object) -> Failure | list[int]:
        tries.append(1)
        return Failure("no_room", "Ray gave no GPUs") if len(tries) <= num_no_room else [0, 0]

    monkeypatch.setattr(ClusterRun, "_attempt", attempt)
    assert run_of(tmp_path, examples_per_step=8).train(60.0) == exit_code
    assert len(tries) == num_tries


@pytest.mark.parametrize(
    ("failure", "stops", "end"),
    [
        (Failure("invalid", "x.ckpt: not a checkpoint"), False, "x.ckpt: not a checkpoint"),
        (Failure("oom", "rank 0: CUDA out of memory"), False, 1),
        (Failure("oom", "rank 0 was killed", killed=True), False, 0),
        (Failure("error", "rank 0: DistBackendError"), False, 0),
        (Failure("worker_died", "rank 0 died"), True, 75),
    ],
)
def test_what_follows_a_failure(
    failure: Failure, stops: bool, end: int | str, tmp_path: Path
) -> None:
    run = ClusterRun(TrainFile(), tmp_path, 0, lambda: stops)
    if isinstance(end, str):
        with pytest.raises(ValueError, match=end):
            run._exit_code(failure, 1)
    else:
        assert run._exit_code(failure, 1) == end
