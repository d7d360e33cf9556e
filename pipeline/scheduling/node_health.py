"""Health of the cluster's nodes: which of them can be trusted with more work.

After a failure nothing is started on a node for a while. A node is doubtful when several groups
failed there in a row, each on another complex or before any fold; then it gets one small complex at
a time, which tells a broken node from a series of complexes that no node can fold. When these fail
too it is bad.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from foldcp.pipeline.scheduling.types import Failure, GroupState, QueuedTask

DOUBTFUL = 5  # failures in a row from which a node gets one small complex at a time
BAD = 8  # failures in a row from which it gets nothing
MAX_PAUSE = 30.0  # seconds between two starts on a node where starts fail


@dataclass(slots=True)
class _Record:
    """Failures on one node since the last success there."""

    failures: set[str] = field(default_factory=set)
    num_pauses: int = 0
    paused_until: float = 0.0


@dataclass(slots=True)
class NodeHealth:
    """Failures in a row of each node."""

    _records: dict[str, _Record] = field(default_factory=dict)

    def succeeded(self, nodes: Iterable[str]) -> None:
        """A fold succeeded on these nodes."""
        for node in nodes:
            self._records.pop(node, None)

    def fold_failed(
        self, group: GroupState, queued: QueuedTask, failure: Failure, now: float
    ) -> None:
        """A group failed while it folded.

        Only a complex's first failure counts against a node: a complex that fails again may be at
        fault itself.
        """
        for node in _blamed_nodes(group, failure):
            if failure.killed:
                self.pause(node, now)
            elif failure.kind != "oom" and not queued.is_suspect:
                self.failed(node, now, queued.task.key)

    def start_failed(self, group: GroupState, failure: Failure, now: float) -> None:
        """A group did not start, which is its nodes' fault, never that of its task."""
        names = [f"start {group.id}"]
        if failure.kind == "timeout":  # waiting for it costs more, so it counts twice
            names.append(f"start {group.id} in time")
        for node in _blamed_nodes(group, failure) or [node for node, _ in group.placement]:
            self.failed(node, now, *names)

    def failed(self, node: str, now: float, *failures: str) -> None:
        """Count failures against a node.

        `failures` names the complex, or the group that did not start; the same name counts once.
        What fails during the pause after a failure is the same failure: all groups of a node may
        die together.
        """
        if node not in self.paused(now):
            self._record(node).failures.update(failures)
            self.pause(node, now)

    def pause(self, node: str, now: float) -> None:
        """Start nothing on a node for a while, twice as long each time: the trouble may pass."""
        record = self._record(node)
        if record.paused_until <= now:
            record.paused_until = now + min(MAX_PAUSE, 2.0**record.num_pauses)
            record.num_pauses += 1

    def forget(self, node: str) -> None:
        """Forget a node that is gone, and the failures that other nodes share with it."""
        shared = self._record(node).failures
        del self._records[node]
        for record in self._records.values():
            record.failures -= shared

    def doubtful(self) -> set[str]:
        """Nodes that get one small complex at a time."""
        return {node for node, record in self._records.items() if len(record.failures) >= DOUBTFUL}

    def is_bad(self, node: str) -> bool:
        """Whether a node should get nothing more."""
        return len(self._record(node).failures) >= BAD

    def paused(self, now: float) -> set[str]:
        """Nodes on which nothing is started now."""
        return {node for node, record in self._records.items() if record.paused_until > now}

    def next_pause_end(self, now: float) -> float:
        """The time at which the first pause ends; infinite without any."""
        ends = [record.paused_until for record in self._records.values()]
        return min((end for end in ends if end > now), default=float("inf"))

    def _record(self, node: str) -> _Record:
        return self._records.setdefault(node, _Record())


def _blamed_nodes(group: GroupState, failure: Failure) -> list[str]:
    """The node that a failure names, or else the group's only one; none if it has several."""
    if failure.node:
        return [failure.node]
    return [node for node, _ in group.placement] if len(group.placement) == 1 else []
