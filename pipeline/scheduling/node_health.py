"""Which nodes of the cluster can be trusted with more work. Plain Python: no Ray, no torch.

After a failure nothing is started on a node for a while. A node is doubtful when several groups
failed there in a row, each on another complex or before any fold; then it gets one small complex at
a time, which tells a broken node from a series of complexes that no node can fold. When these fail
too it is bad.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

DOUBTFUL = 5  # failures in a row from which a node gets one small complex at a time
BAD = 8  # failures in a row from which it gets nothing
LONGEST_PAUSE = 30.0  # seconds between two starts on a node where starts fail


@dataclass(slots=True)
class _Record:
    """What failed on one node since something last succeeded there."""

    failures: set[str] = field(default_factory=set)
    num_pauses: int = 0
    resume_at: float = 0.0


@dataclass(slots=True)
class NodeHealth:
    """Failures in a row by node."""

    _records: dict[str, _Record] = field(default_factory=dict)

    def succeeded(self, nodes: Iterable[str]) -> None:
        """A fold came back from these nodes."""
        for node in nodes:
            self._records.pop(node, None)

    def failed(self, node: str, now: float, *failures: str) -> None:
        """A failure that counts against a node. `failures` names the complex, or the group that did
        not start; the same name counts once. What fails during the pause after a failure is the
        same failure: all groups of a node may die together.
        """
        if node not in self.pausing(now):
            self._record(node).failures.update(failures)
            self.pause(node, now)

    def pause(self, node: str, now: float) -> None:
        """Start nothing on a node for a while, twice as long each time: what ails it may pass."""
        record = self._record(node)
        if record.resume_at <= now:
            record.resume_at = now + min(LONGEST_PAUSE, 2.0**record.num_pauses)
            record.num_pauses += 1

    def given_up(self, node: str) -> None:
        """Forget a node, and what other nodes failed at together with it."""
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

    def pausing(self, now: float) -> set[str]:
        """Nodes on which nothing is started now."""
        return {node for node, record in self._records.items() if record.resume_at > now}

    def next_resume(self, now: float) -> float:
        """When the first pause ends; infinite without any."""
        ends = (record.resume_at for record in self._records.values() if record.resume_at > now)
        return min(ends, default=float("inf"))

    def _record(self, node: str) -> _Record:
        return self._records.setdefault(node, _Record())
