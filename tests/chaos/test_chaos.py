"""Schedules of faults: how they are drawn, thousands in virtual time, a few on real Ray."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pandas as pd
import psutil
import pytest

from tests.chaos.checks import (
    Evidence,
    InvocationEnd,
    check_reasons,
    complaints_of_end,
    end_of_second_driver,
)
from tests.chaos.cluster import kill, marked, title, wait_until, with_descendants
from tests.chaos.execute import MARK, PATH
from tests.chaos.fork_server import COLUMNS_FILE, write_columns
from tests.chaos.injection import Hit
from tests.chaos.schedule import FoldFaultKind, ProcessFaultKind, draw_schedule
from tests.chaos.virtual import simulate_schedule

ROOT = Path(__file__).parents[2]
FORK_SERVER = str(PATH.parent / "fork_server.py")
SOME = "8,23,28"  # seeds of schedules for the ordinary tests


def test_draw_schedule_repeats_a_seed_and_draws_every_kind() -> None:
    schedules = [draw_schedule(seed) for seed in range(100)]
    assert schedules == [draw_schedule(seed) for seed in range(100)]
    kinds = Counter(kind for schedule in schedules for kind in schedule.kinds)
    expected = {*get_args(FoldFaultKind), *get_args(ProcessFaultKind), "truncate"}
    assert set(kinds) == expected
    assert all(schedule.kinds for schedule in schedules)
    assert sum(len(schedule.kinds) > 1 for schedule in schedules) > 50


@pytest.mark.parametrize(("size", "number"), [(1, 2000), (10, 300)])
def test_simulated_schedules_give_every_task_one_outcome(size: int, number: int) -> None:
    num_folds = sum(simulate_schedule(draw_schedule(seed, size)) for seed in range(number))
    assert num_folds > 5 * size * number


@pytest.mark.parametrize(
    ("kind", "code", "is_right"),
    [
        ("SIGTERM", 143, True),
        ("SIGTERM", 130, False),
        ("SIGKILL", -9, True),
        ("kill_rank", 0, True),
        ("kill_rank", -9, False),
        ("disk_full", 75, True),
        ("kill_group", 75, False),
    ],
)
def test_complaints_of_end(kind: str, code: int, is_right: bool) -> None:
    end = InvocationEnd(code, (Hit(kind, ()),), ())
    assert (complaints_of_end(end) == []) == is_right


@pytest.mark.parametrize(
    ("hits", "fold_hits", "is_true"),
    [
        (["kill_rank", "kill_group"], [], True),
        (["kill_rank"], [], False),  # one is not enough
        ([], [("die", "c1"), ("die", "c1")], True),
        ([], [("die", "c2"), ("die", "c2")], False),
        (["freeze_rank", "freeze_group"], [], False),
        (["SIGINT", "disk_full"], [], False),
    ],
)
def test_check_reasons_wants_faults_that_explain_a_failure(
    hits: list[str], fold_hits: list[tuple[str, str]], is_true: bool
) -> None:
    rows = [{"name": "c1", "outcome": "failed", "reason": "rank 0 died"}]
    end = InvocationEnd(1, tuple(Hit(kind, ()) for kind in hits), tuple(fold_hits))
    evidence = Evidence(draw_schedule(0), (end,), tuple(fold_hits))
    assert (list(check_reasons(pd.DataFrame(rows), evidence)) == []) == is_true


@pytest.mark.parametrize(
    ("code", "kinds"), [(2, None), (1, set[str]()), (75, {"disk_full"}), (0, {"kill_node"})]
)
def test_second_driver_is_an_invocation_unless_it_refuses(
    code: int, kinds: set[str] | None
) -> None:
    hits = tuple(Hit(kind, ()) for kind in ("kill_rank", "SIGTERM", *(kinds or ())))
    first = InvocationEnd(143, hits, (("oom", "c1"),))
    end = end_of_second_driver(code, first, (("oom", "c2"),))
    if kinds is None:
        assert end is None
        return
    assert end is not None
    assert end.kinds == {*kinds, "oom"}
    assert end.fold_hits == (("oom", "c2"),)
    assert complaints_of_end(end) == []


# Two forked workers, one of which leaves a process behind.
LEFT = """
import os, subprocess, time, psutil, ray
from foldcp.pipeline.execution.ray_cluster import RayConnection
connection = RayConnection("", 2, False)
class WorkerActor:
    def pid(self):
        return os.getpid()
    def leave(self):
        return subprocess.Popen(["sleep", "600"], start_new_session=True).pid
actors = [ray.remote(WorkerActor).remote() for _ in range(2)]
(raylet,) = [x for x in psutil.Process().children() if x.name() == "raylet"]
pids = ray.get([actor.pid.remote() for actor in actors])
print(raylet.pid, *pids, ray.get(actors[0].leave.remote()), flush=True)
time.sleep(600)
"""


@pytest.fixture
def lane() -> Iterator[Path]:
    """The folder of a lane, whose processes are killed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="fc-"))  # short, as sockets are in it
    write_columns(folder / COLUMNS_FILE)
    lane = folder / "lane"
    lane.mkdir()
    yield lane
    kill(marked(MARK, str(lane)))
    shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up as on Linux")
def test_what_forked_workers_leave_behind_is_found(lane: Path) -> None:
    variables = {MARK: str(lane), "RAY_TMPDIR": str(lane), "PYTHONPATH": f"{PATH}:{ROOT}"}
    command = [sys.executable, "-c", LEFT]
    with subprocess.Popen(
        command, env=os.environ | variables, stdout=subprocess.PIPE, text=True
    ) as driver:
        try:
            assert driver.stdout is not None
            raylet, *workers, left = map(int, driver.stdout.readline().split())
            (server,) = {psutil.Process(worker).ppid() for worker in workers}
            assert FORK_SERVER in psutil.Process(server).cmdline()
            assert psutil.Process(server).ppid() == raylet
            found = {each.pid: title(each) for each in with_descendants([psutil.Process(raylet)])}
            assert [found[worker] for worker in workers] == ["ray::WorkerActor"] * 2
            assert {server, left, *workers} <= {each.pid for each in marked(MARK, str(lane))}
        finally:
            driver.kill()
    wait_until(lambda: not psutil.pid_exists(server), "the end of the fork server")
    assert left in {each.pid for each in marked(MARK, str(lane))}


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up as on Linux")
@pytest.mark.timeout(1500)  # a minute on a quiet machine
def test_runs_survive_schedules_of_faults() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--seeds", SOME, "--lanes", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1400)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert f"{len(SOME.split(','))} schedules" in result.stdout
