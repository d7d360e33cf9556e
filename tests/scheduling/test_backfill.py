"""EASY backfilling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from foldcp.pipeline.scheduling.group_size import CostCache, initial_shape
from foldcp.pipeline.scheduling.groups import Groups
from foldcp.pipeline.scheduling.placement import Cluster
from foldcp.pipeline.scheduling.policy.backfill import BackfillPolicy, Decision
from foldcp.pipeline.scheduling.queue import Queue
from foldcp.pipeline.scheduling.types import GroupState, QueuedTask
from tests.support.scheduling import COSTS, task


def test_backfill_does_not_delay_a_blocked_larger_group() -> None:
    # One GPU is free, others are busy with 2,000 tokens; the largest fold waits for two. If the
    # free one is among them, a short fold may go ahead and a long one may not; if two others end at
    # once, the long one may.
    def choose(names: Sequence[str], num_busy: int) -> Decision | None:
        costs = CostCache(COSTS, 2)
        one = initial_shape(COSTS, 1, "mixed")
        waiting = {
            "wide": QueuedTask(task(9_000, "wide"), replace(one, num_ranks=2)),
            "long": QueuedTask(task(2_200, "long"), one),
            "short": QueuedTask(task(900, "short"), one),
            "running": QueuedTask(task(2_000, "running"), one),
        }
        queue = Queue()
        for name, queued in waiting.items():
            queued.seconds = costs.seconds(queued.task, queued.shape)
            if name in names:
                queue.push(queued)
        cluster = Cluster({"a": 1 + num_busy})
        cluster.take((("a", num_busy),))
        groups = Groups()
        running = waiting["running"]
        busy = GroupState(1, (("a", num_busy),), "busy", 0.0, 1e9, running)
        busy.expected_end = running.seconds
        groups.add(busy)
        return BackfillPolicy(queue, groups, cluster, costs, 0.0, 1.0, 5.0).decide()

    assert choose(["wide", "long"], 1) is None
    for waiting in (["wide", "short"], ["wide", "long", "short"]):
        decision = choose(waiting, 1)
        assert decision is not None
        assert (decision.queued.task.key, decision.placement) == ("short", (("a", 1),))
    decision = choose(["wide", "long", "short"], 2)
    assert decision is not None
    assert decision.queued.task.key == "long"
