"""What others see of a run in progress: its status, its log, and how far its folds are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from foldcp.pipeline.cli import app
from foldcp.pipeline.config import RunSection
from foldcp.pipeline.execution.monitoring import heartbeat, progress_actor
from foldcp.pipeline.execution.monitoring import monitor as module
from foldcp.pipeline.execution.monitoring.heartbeat import Heartbeat
from foldcp.pipeline.execution.monitoring.monitor import Monitor
from foldcp.pipeline.execution.monitoring.progress_actor import FoldProgress, RayError
from foldcp.pipeline.execution.monitoring.run_status import (
    GroupStatus,
    RunStatus,
    read_status,
    write_status,
)
from foldcp.pipeline.execution.ray_cluster import Node
from foldcp.pipeline.scheduling.scheduler import Scheduler
from foldcp.pipeline.scheduling.types import Failure, Fold, FoldStep, Start
from foldcp.pipeline.storage.store import Store
from tests.support.scheduling import COSTS, SETTINGS, task
from tests.support.synthetic_results import INFO

ALONE = replace(SETTINGS, batch=1)

GROUP = GroupStatus(
    group=3,
    gpus="n1:8, n2:8",
    num_gpus=16,
    state="folding",
    complex="26S \x1b[31mproteasome",
    num_tokens=12_345,
    seconds=600.0,
    predicted_seconds=1_200.0,
    stage="trunk",
    step=2,
    num_steps=4,
    seconds_since_step=100.0,
)
STATUS = RunStatus(
    run_id="run-1",
    host="head",
    pid=1,
    device="cuda",
    started="2026-01-02T03:04:05+00:00",
    updated="2026-01-02T03:14:05+00:00",
    num_complexes=3_694,
    num_done=1_200,
    num_failed=2,
    num_invalid=91,
    failures={"needs 40 GPUs": 2},
    num_gpus=32,
    num_busy_gpus=16,
    gpu_hours=5.25,
    gpu_hours_left=12.5,
    use=0.87,
    seconds_left=3_725.0,
    groups=(GROUP, replace(GROUP, group=4, num_gpus=1, state="idle", complex="", stage="")),
)


def test_status_comes_back_from_the_folder(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
    write_status(tmp_path, STATUS)
    assert read_status(tmp_path) == STATUS
    assert STATUS.num_waiting == 3_694 - 1_200 - 2 - 1
    (tmp_path / "status.json").write_text('{"groups": []}')
    with pytest.raises(ValueError, match=r"status\.json: damaged"):
        read_status(tmp_path)


def test_status_command_prints_complexes_groups_and_reasons(tmp_path: Path) -> None:
    """While the store is open the run counts as running; afterwards it does not."""
    out = tmp_path / "run"
    store = Store.open(out, INFO)
    assert "not yet folding" in CliRunner().invoke(app, ["status", str(out)]).output
    write_status(out, STATUS)
    printed = CliRunner().invoke(app, ["status", str(out)]).output
    for words in (
        "running on head",
        "1,200 of 3,694 complexes done, 2 failed, 91 invalid, 1 folding, 2,491 waiting",
        "16 of 32 GPUs busy, 87% of their time so far; 5.25 GPU-hours spent, 12.50 left",
        "about 1:02:05 left",
        "failed (2): needs 40 GPUs",
        "trunk 2/4",
        "12,345",
        "20:00",
    ):
        assert words in printed, words
    assert "\x1b" not in printed
    batch = replace(GROUP, batch=8, num_tokens=256, complex="a name that is much too long for it")
    write_status(out, replace(STATUS, groups=(batch,)))
    printed = CliRunner().invoke(app, ["status", str(out)]).output
    assert "8 folding, 2,484 waiting" in printed
    assert "a name that is much t and 7 more" in printed
    store.close()
    result = CliRunner().invoke(app, ["status", str(out), "--json"])
    found = json.loads(result.output)
    assert found["running"] is False and found["groups"][0]["step"] == 2
    assert "not running" in CliRunner().invoke(app, ["status", str(out)]).output


def test_status_of_no_run_is_a_mistake(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert isinstance(result.exception, ValueError)
    assert "not the folder of a run" in str(result.exception)


def test_heartbeat_sends_what_is_new_and_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat.threading, "Thread", lambda **_: SimpleNamespace(start=int))
    sent: list[FoldStep] = []
    beats = Heartbeat(sent.append, torch.device("cpu"))
    beats.beat(100.0)
    assert not sent
    beats("trunk", 8, 16)
    beats.beat(101.0)
    beats("trunk", 9, 16)
    beats("trunk", 10, 16)
    for now in (102.0, 103.0, 111.0, 112.5):
        beats.beat(now)
    assert sent == [
        FoldStep("trunk", 8, 16, 0.0, first=8),
        FoldStep("trunk", 10, 16, 0.0, first=8),
        FoldStep("trunk", 10, 16, 10.5, first=8),
    ]


class FakeRay:
    """Ray, whose answer to a question is there or not, or an error."""

    def __init__(self) -> None:
        self.answer: dict[str, FoldStep] | RayError | None = None

    def get_runtime_context(self) -> SimpleNamespace:
        return SimpleNamespace(get_node_id=lambda: "node")

    def wait(self, refs: list[object], timeout: float) -> tuple[list[object], list[object]]:
        return (refs, []) if self.answer is not None else ([], refs)

    def get(self, ref: object) -> dict[str, FoldStep]:
        if isinstance(self.answer, RayError):
            raise self.answer
        assert self.answer is not None
        return self.answer


def test_progress_is_told_only_if_it_is_timely(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost actor, one that answers late and one that began again tell of no group."""
    clock = SimpleNamespace(now=100.0)
    fake = FakeRay()
    actor = SimpleNamespace(steps=SimpleNamespace(remote=object))
    made = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: actor))
    monkeypatch.setattr(progress_actor, "ray", fake)
    monkeypatch.setattr(progress_actor, "ProgressActor", made)
    monkeypatch.setattr(progress_actor, "NodeAffinitySchedulingStrategy", lambda *_, **__: None)
    monkeypatch.setattr(progress_actor.time, "monotonic", lambda: clock.now)
    progress = FoldProgress()

    def update(seconds: float) -> bool:
        clock.now += seconds
        return progress.update()

    assert not update(0.0), "it is asked"
    assert not update(1.0)
    fake.answer = {"g": FoldStep("trunk", 3, 8, 7.0)}
    assert update(1.0)
    assert progress.step("g") == FoldStep("trunk", 3, 8, 9.0), "as of the question"
    assert progress.step("other") is None
    fake.answer = None
    assert not update(progress_actor.ASK_SECONDS)
    fake.answer = {"g": FoldStep("trunk", 3, 8, 100.0)}
    assert not update(progress_actor.MAX_DELAY + 1.0), "too late to end a fold for it"
    fake.answer = RayError()
    assert not update(progress_actor.ASK_SECONDS)
    assert progress.step("g") is None
    fake.answer = {}
    assert update(progress_actor.ASK_SECONDS) and progress.step("g") is None


class FakeProgress:
    """Steps of folds, without Ray."""

    def __init__(self) -> None:
        self.steps: dict[str, FoldStep] = {}

    def update(self) -> bool:
        return True

    def step(self, group: str) -> FoldStep | None:
        return self.steps.get(group)


def make_monitor(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_tasks: int = 3,
    settings: RunSection = ALONE,
) -> tuple[Monitor, Scheduler, Any]:
    counted: list[Any] = []
    metrics = SimpleNamespace(set_status=lambda status: None, count_attempt=counted.append)
    monkeypatch.setattr(module, "FoldProgress", FakeProgress)
    monkeypatch.setattr(module, "Metrics", lambda run_id: metrics)
    tasks = [task(300 + number, f"c{number}") for number in range(num_tasks)]
    scheduler = Scheduler(tasks, COSTS, {"n": 1}, settings)
    nodes = {"n": Node("n", "host", 1, 4)}
    monitor = Monitor(
        tmp_path,
        "run-1",
        scheduler,
        nodes,
        num_tasks=num_tasks,
        num_done_before=10,
        num_invalid=2,
    )
    return monitor, scheduler, counted


def test_monitor_follows_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One complex is done after 8 s, another fails, the third folds."""
    monitor, scheduler, counted = make_monitor(tmp_path, monkeypatch)

    def decide(now: float) -> None:
        for action in scheduler.decide(now):
            monitor.acted(action)

    decide(0.0)
    scheduler.ready(1, 2.0)
    decide(2.0)
    monitor.update(2.0)
    status = read_status(tmp_path)
    assert status is not None
    assert (status.num_complexes, status.num_done, status.num_invalid) == (13, 10, 2)
    assert (status.num_gpus, status.num_busy_gpus, status.num_waiting) == (1, 1, 2)
    scheduler.finished(1, 10.0)
    decide(10.0)
    monitor.progress.steps["foldcp-run-1-1"] = FoldStep("sampling", 7, 200, 9.0)
    monitor.update(11.0)
    status = read_status(tmp_path)
    assert status is not None
    assert status.num_done == 11
    assert status.gpu_hours == pytest.approx((8 + 1) / 3600)
    assert status.use == pytest.approx(9 / 11)
    assert status.groups[0].stage == ""  # that step was of the fold before
    monitor.progress.steps["foldcp-run-1-1"] = FoldStep("trunk", 1, 4, 0.5)
    failure = Failure("invalid", "no atoms")
    monitor.failed(1, failure)
    assert monitor.status(12.0).groups[0].stage == "trunk"
    scheduler.failed(1, failure, 12.0)
    decide(12.0)
    monitor.close(12.5)
    status = read_status(tmp_path)
    assert status is not None
    assert (status.num_failed, status.failures) == (1, {"no atoms": 1})
    assert [attempt.outcome for attempt in counted] == ["done", "invalid"]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == [
        "run_started",
        "group_started",
        "fold_started",
        "fold_started",
        "attempt_ended",
        "failure",
        "fold_started",
        "attempt_ended",
        "run_ended",
    ]
    assert lines[1]["gpus"] == "host:1" and lines[4]["seconds"] == 8.0


def test_monitor_counts_the_complexes_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, scheduler, counted = make_monitor(tmp_path, monkeypatch, 9, SETTINGS)
    for action in scheduler.decide(0.0):
        monitor.acted(action)
    scheduler.ready(1, 2.0)
    for action in scheduler.decide(2.0):
        monitor.acted(action)
    status = monitor.status(4.0)
    (group,) = status.groups
    assert group.batch > 1
    assert status.num_waiting == 9 - group.batch
    assert status.num_busy_gpus == 1
    scheduler.finished(1, 10.0)
    monitor.close(10.0)
    assert len(counted) == group.batch
    assert sum(attempt.gpu_seconds for attempt in counted) == pytest.approx(8.0)
    assert monitor.status(10.0).gpu_hours == pytest.approx(8 / 3600)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    begun = [line for line in lines if line["event"] == "fold_started"]
    assert len({line["key"] for line in begun}) == group.batch


def test_status_is_written_every_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, _, _ = make_monitor(tmp_path, monkeypatch)
    written: list[float] = []
    monkeypatch.setattr(module, "write_status", lambda root, status: written.append(1))
    for tenth in range(50):
        monitor.update(tenth / 10)
    assert len(written) == 3


def test_actions_are_logged_with_what_they_concern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, scheduler, _ = make_monitor(tmp_path, monkeypatch, num_tasks=1)
    (start,) = scheduler.decide(0.0)
    assert isinstance(start, Start)
    monitor.acted(start)
    scheduler.ready(1, 1.0)
    (fold,) = scheduler.decide(1.0)
    assert isinstance(fold, Fold)
    monitor.acted(fold)
    monitor.nodes_changed("node_lost", "n")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[2]["complex"] == "any" and lines[2]["tokens"] == 300
    assert lines[3] | {"time": "", "run_id": ""} == {
        "time": "",
        "run_id": "",
        "event": "node_lost",
        "node": "host",
    }
