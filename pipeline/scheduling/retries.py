"""Retries: what follows a failed attempt.

Another attempt as before, an out-of-memory fallback, a retry after all other tasks, or failure.
"""

from __future__ import annotations

from dataclasses import dataclass

from foldcp.pipeline.config import RunSection
from foldcp.pipeline.scheduling.cost_model import CostModel
from foldcp.pipeline.scheduling.group_size import next_oom_fallback
from foldcp.pipeline.scheduling.placement import Placement
from foldcp.pipeline.scheduling.types import Failure, QueuedTask


@dataclass(frozen=True, slots=True)
class Retry:
    """Another attempt: at once, or when no other task waits."""

    is_last: bool


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further attempt, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The limits of retries, and the shape of the next attempt."""

    costs: CostModel
    settings: RunSection

    def after(
        self, queued: QueuedTask, placement: Placement, failure: Failure, max_ranks: int
    ) -> Retry | GiveUp:
        """Prepare a task for what follows an attempt that failed at `placement`.

        No group may be larger than `max_ranks`.
        """
        if failure.killed and not queued.memory_kills:
            queued.memory_kills += 1
            queued.fallbacks += ("again as before, after memory pressure",)
            return Retry(is_last=True)
        if failure.kind == "oom":
            return self._after_oom(queued, failure, max_ranks)
        queued.is_suspect = True
        queued.worker_failures += 1
        queued.timeouts += failure.kind == "timeout"
        queued.avoid_nodes |= {node for node, _ in placement}
        if queued.worker_failures > self.settings.retries:
            return GiveUp(failure.reason)
        return Retry(is_last=True)

    def _after_oom(self, queued: QueuedTask, failure: Failure, max_ranks: int) -> Retry | GiveUp:
        allowed = self.settings.fallbacks
        fallback = next_oom_fallback(self.costs, queued.task, queued.shape, max_ranks, allowed)
        if fallback is None:
            limits = "" if allowed == "all" else f" with run.fallbacks={allowed}"
            return GiveUp(f"out of memory, and no fallback is left{limits}: {failure.reason}")
        queued.shape, description = fallback
        queued.min_ranks = queued.shape.num_ranks
        queued.fallbacks += (description,)
        return Retry(is_last=False)
