"""Recorder of a run: results, attempts and failed complexes, written to the store."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from tqdm import tqdm

from foldcp.pipeline.execution.ray_cluster import Node
from foldcp.pipeline.execution.recording.result_writer import unstorable
from foldcp.pipeline.execution.results import DeviceLocation, FoldStats, StagedResult
from foldcp.pipeline.inputs.tasks import Failed, Outcome
from foldcp.pipeline.planning.run_plan import RunPlan
from foldcp.pipeline.scheduling.cost_model import CostModel
from foldcp.pipeline.scheduling.types import Attempt, Failure, QueuedTask
from foldcp.pipeline.storage.results.result_rows import attempt_row, failed_rows
from foldcp.pipeline.storage.store import Store
from foldcp.printable import printable


class Recorder:
    """Stores what a run produces, each thing once."""

    def __init__(
        self,
        store: Store,
        plan: RunPlan,
        costs: CostModel,
        nodes: Mapping[str, Node],
        began: datetime,
    ) -> None:
        """`nodes` are all nodes so far by id; `began` is when the driver's clock was 0."""
        self.num_outcomes = 0
        self.num_failed = 0
        self._store = store
        self._plan = plan
        self._costs = costs
        self._nodes = nodes
        self._began = began
        self._num_attempts = 0
        self._stats: dict[tuple[str, int], FoldStats] = {}  # by task and number of the attempt
        self._locations: dict[int, list[DeviceLocation]] = {}  # of the GPUs of each group

    def set_locations(self, group: int, locations: Sequence[DeviceLocation]) -> None:
        """Remember the devices of a group that has started."""
        self._locations[group] = [location for location in locations if location.gpu]

    def set_kernels(self, kernels: str) -> None:
        """Record what the network computes with among the versions of the run."""
        self._store.add_version("kernels", kernels)

    def store_results(
        self, results: Sequence[tuple[QueuedTask, StagedResult]]
    ) -> dict[str, Failure]:
        """Store results of the current attempts of tasks.

        Returns, by key, a Failure of each that cannot be stored. Raises OSError when the disk
        fails, as that would fail every complex.
        """
        errors = self._store.put_staged([result.commit for _, result in results])
        for queued, result in results:
            if queued.task.key not in errors:
                self._stats[queued.task.key, queued.num_attempts] = result.stats
        return {key: unstorable(error) for key, error in errors.items()}

    def record(self, attempts: Sequence[Attempt], outcomes: dict[str, Outcome]) -> None:
        """Store the attempts that have ended and the tasks that have failed since the last call."""
        ended = attempts[self._num_attempts :]
        self._num_attempts += len(ended)
        if ended:
            self._store.put_attempts([self._attempt_row(attempt) for attempt in ended])
        for outcome in outcomes_after(self.num_outcomes, outcomes):
            self.num_outcomes += 1
            if isinstance(outcome, Failed):
                self.num_failed += 1
                reason = outcome.reason
                key = outcome.task.key
                if self._store.outcome(key) == "done":
                    reason += "; its earlier result stays as it was"
                else:
                    rows = failed_rows(outcome.task, reason, self._plan.provenance)
                    self._store.put(key, rows, write=self._store.written_before(key))
                tqdm.write(printable(f"{outcome.task.name}: {reason}"), file=sys.stderr)

    def _attempt_row(self, attempt: Attempt) -> dict[str, Any]:
        stats = self._stats.pop((attempt.task.key, attempt.number), None)
        return attempt_row(
            attempt,
            self._began + timedelta(seconds=attempt.started),
            self._devices(attempt),
            self._plan.config.model.samples,
            self._costs.least_bytes(attempt.task, attempt.shape),
            self._costs.peak_bytes(attempt.task, attempt.shape),
            stats.seconds if stats else None,
            stats.peak_bytes if stats else None,
        )

    def _devices(self, attempt: Attempt) -> str:
        """The GPUs of an attempt as host:index.

        As host:count for CPU ranks and for a group that never started.
        """
        devices = [
            (location.node, location.gpu) for location in self._locations.get(attempt.group, [])
        ]
        if not devices:
            devices = [(node, str(count)) for node, count in attempt.placement]
        return ",".join(f"{self._nodes[node].host}:{device}" for node, device in devices)


def outcomes_after(num_known: int, outcomes: dict[str, Outcome]) -> list[Outcome]:
    """The outcomes after the first `num_known`, in their order, without a look at those."""
    num_new = len(outcomes) - num_known
    return list(islice(reversed(outcomes.values()), num_new))[::-1]
