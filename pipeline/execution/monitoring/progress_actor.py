"""Progress of the folds: rank 0 of every worker group reports its stage and step to one actor.

A report is a message that nobody waits for, at most one a second (`heartbeat.py`), so it costs a
fold nothing. The driver asks for all of them together. The actor runs on the driver's node; without
it a run goes on, but nobody sees how far its folds are, and a fold that hangs is ended by its
deadline alone.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from foldcp.pipeline.execution import ray_cluster  # noqa: F401  sets Ray's environment
from foldcp.pipeline.execution.signals import end_with_raylet
from foldcp.pipeline.scheduling.types import FoldStep

import ray  # isort: skip  after ray_cluster.py, which sets its environment
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ASK_SECONDS = 2.0  # between two questions of the driver
MAX_DELAY = 5.0  # of an answer that says how far the folds are now


def group_name(run_id: str, group: int) -> str:
    """The name of a worker group in Ray, under which it reports."""
    return f"foldcp-{run_id}-{group}"


@ray.remote(num_cpus=0, max_restarts=-1)
class ProgressActor:
    """The last report of every group."""

    def __init__(self) -> None:
        end_with_raylet()
        self._steps: dict[str, tuple[FoldStep, float]] = {}

    def report(self, group: str, step: FoldStep) -> None:
        """Keep the step of a group, which was done some seconds ago."""
        self._steps[group] = (step, time.monotonic())

    def steps(self) -> dict[str, FoldStep]:
        """The last step of every group."""
        now = time.monotonic()
        return {
            group: replace(step, seconds=step.seconds + now - reported)
            for group, (step, reported) in self._steps.items()
        }


class ProgressReporter:
    """Sends the steps of a group to the actor."""

    def __init__(self, actor: Any, group: str) -> None:
        self._actor = actor
        self._group = group

    def __call__(self, step: FoldStep) -> None:
        """Send a step; nobody waits for it."""
        self._actor.report.remote(self._group, step)


class FoldProgress:
    """The driver's view of all folds; it never waits for it."""

    def __init__(self) -> None:
        node = ray.get_runtime_context().get_node_id()
        strategy = NodeAffinitySchedulingStrategy(node, soft=True)
        self.actor: Any = ProgressActor.options(scheduling_strategy=strategy).remote()
        self._steps: dict[str, FoldStep] = {}
        self._as_of = 0.0  # when they were asked for
        self._answer: Any = None
        self._asked = -ASK_SECONDS

    def update(self) -> bool:
        """Ask the actor now and then; whether a timely answer has come since the last call.

        While the actor is lost there is none, and after it has begun again, none of a group that
        has not reported again.
        """
        now = time.monotonic()
        is_new = False
        if self._answer is not None:
            ready, _ = ray.wait([self._answer], timeout=0)
            if not ready:
                return False
            try:
                self._steps = ray.get(ready[0])
                is_new = now - self._asked < MAX_DELAY
            except RayError:  # the actor's process died; Ray starts it again
                self._steps = {}
            self._as_of = self._asked
            self._answer = None
        if now - self._asked >= ASK_SECONDS:
            self._asked = now
            self._answer = self.actor.steps.remote()
        return is_new

    def step(self, group: str) -> FoldStep | None:
        """The last step that a group has reported, and how long ago it was done."""
        step = self._steps.get(group)
        if step is None:
            return None
        return replace(step, seconds=step.seconds + time.monotonic() - self._as_of)
