"""Progress of the folds: rank 0 of every worker group reports its stage and step to one actor.

A report is a message that nobody waits for, at most one a second, so it costs a fold nothing. The
driver asks for all of them together. The actor runs on the driver's node; without it a run goes on,
but nobody sees how far its folds are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from foldcp.pipeline.execution import ray_cluster  # noqa: F401  sets Ray's environment

import ray  # isort: skip  after ray_cluster.py, which sets its environment
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

REPORT_SECONDS = 1.0  # at least, between two reports of a group
ASK_SECONDS = 2.0  # between two questions of the driver


def group_name(run_id: str, group: int) -> str:
    """The name of a worker group in Ray, under which it reports."""
    return f"foldcp-{run_id}-{group}"


@dataclass(frozen=True, slots=True)
class FoldStep:
    """How far a fold is: step `done` of `total` of a stage, and for how long."""

    stage: str
    done: int
    total: int
    seconds: float = 0.0  # since it was reported


@ray.remote(num_cpus=0, max_restarts=-1)
class ProgressActor:
    """The last report of every group."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[FoldStep, float]] = {}

    def report(self, group: str, step: FoldStep) -> None:
        """Keep the step of a group."""
        self._steps[group] = (step, time.monotonic())

    def steps(self) -> dict[str, FoldStep]:
        """The last step of every group."""
        now = time.monotonic()
        return {
            group: replace(step, seconds=now - reported)
            for group, (step, reported) in self._steps.items()
        }


class ProgressReporter:
    """The progress callback of rank 0 of a group."""

    def __init__(self, actor: Any, group: str) -> None:
        self._actor = actor
        self._group = group
        self._stage = ""
        self._reported = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report a step, unless one of the same stage was reported a moment ago."""
        now = time.monotonic()
        if stage == self._stage and now - self._reported < REPORT_SECONDS:
            return
        self._stage = stage
        self._reported = now
        self._actor.report.remote(self._group, FoldStep(stage, done, total))


class FoldProgress:
    """The driver's view of all folds; it never waits for it."""

    def __init__(self) -> None:
        node = ray.get_runtime_context().get_node_id()
        strategy = NodeAffinitySchedulingStrategy(node, soft=True)
        self.actor: Any = ProgressActor.options(scheduling_strategy=strategy).remote()
        self._steps: dict[str, FoldStep] = {}
        self._answer: Any = None
        self._asked = -ASK_SECONDS

    def update(self) -> None:
        """Take the answer to the last question, if it is there, and ask again now and then."""
        now = time.monotonic()
        if self._answer is not None:
            ready, _ = ray.wait([self._answer], timeout=0)
            if not ready:
                return
            try:
                self._steps = ray.get(ready[0])
            except RayError:  # the actor's process died; Ray starts it again
                self._steps = {}
            self._answer = None
        if now - self._asked >= ASK_SECONDS:
            self._asked = now
            self._answer = self.actor.steps.remote()

    def step(self, group: str) -> FoldStep | None:
        """The last step that a group has reported."""
        return self._steps.get(group)
