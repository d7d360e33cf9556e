"""Health of the cluster's nodes: which of them can be trusted with more work.

After a failure nothing is started on a node for a while. A node is doubtful when several groups
failed there in a row, each on another complex or before any fold; then it gets one small complex at
a time, which tells a broken node from a series of complexes that no node can fold. When these fail
too it is bad, and on probation: it is out of the cluster for a while, each time for longer, and
then gets one small complex again.

Where Ray gives a group no GPUs (`no_room`), nothing has failed on its nodes: another job has some,
or Ray, which places one group at a time, waits for a node that is frozen, up to its timeout of
seven minutes (ray-project/ray issue 20477). Small complexes may find room where large ones do not,
so these nodes are doubtful, too; they are bad only after the patience of the run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from foldcp.pipeline.scheduling.types import Failure, GroupState, QueuedTask

DOUBTFUL = 5  # failures in a row from which a node gets one small complex at a time
BAD = 8  # failures in a row from which it is on probation
MAX_PAUSE = 30.0  # seconds between two starts on a node where starts fail
PROBATION = 120.0  # seconds out of the cluster for the first time, and then twice as many
MAX_PROBATION = 1_800.0


@dataclass(slots=True)
class _Record:
    """Failures on one node since the last success there."""

    failures: set[str] = field(default_factory=set)
    num_pauses: int = 0
    paused_until: float = 0.0
    is_trusted: bool = False  # with larger complexes, as no small one is left
    num_probations: int = 0
    num_no_room: int = 0  # tries in a row for which Ray had no GPUs
    no_room_since: float = 0.0  # when the first of them began
    no_room_at: float = -math.inf  # when the last of them ended

    @property
    def num_doubts(self) -> int:
        """What makes a node doubtful."""
        return max(len(self.failures), self.num_no_room)


@dataclass(frozen=True, slots=True)
class Probation:
    """A node that is out of the cluster until a time, and its GPUs."""

    node: str
    num_gpus: int
    until: float


@dataclass(slots=True)
class NodeHealth:
    """Failures in a row of each node; `patience` is in seconds."""

    patience: float
    _records: dict[str, _Record] = field(default_factory=dict)
    _on_probation: list[Probation] = field(default_factory=list)

    def succeeded(self, nodes: Iterable[str]) -> None:
        """A fold succeeded on these nodes."""
        for node in nodes:
            self._records.pop(node, None)

    def started(self, nodes: Iterable[str]) -> None:
        """A group has started on these nodes."""
        for node in nodes:
            if record := self._records.get(node):
                record.num_no_room = 0

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
        if failure.kind == "no_room":
            for node, _ in group.placement:
                self._had_no_room(node, group.since, now)
            return
        names = [f"start {group.id}"]
        if failure.kind == "timeout":  # waiting for it costs more, so it counts twice
            names.append(f"start {group.id} in time")
        for node in _blamed_nodes(group, failure) or [node for node, _ in group.placement]:
            self.failed(node, now, *names)

    def _had_no_room(self, node: str, began: float, now: float) -> None:
        """Ray had no GPUs of a node for a group that it was asked to start at `began`."""
        record = self._record(node)
        if began - record.no_room_at > 2 * MAX_PAUSE:  # nothing was tried in between
            record.num_no_room = 0
        if record.num_no_room == 0:
            record.no_room_since = began
        record.num_no_room += 1
        record.no_room_at = now
        self.pause(node, now)

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
        self._on_probation = [other for other in self._on_probation if other.node != node]
        self._share_no_failure(node)
        del self._records[node]

    def put_on_probation(self, node: str, num_gpus: int, now: float) -> None:
        """A bad node leaves the cluster for a while, and other nodes share no failure with it."""
        self._share_no_failure(node)
        record = self._record(node)
        seconds = min(MAX_PROBATION, PROBATION * 2**record.num_probations)
        record.num_probations += 1
        record.num_no_room = 0
        self._on_probation.append(Probation(node, num_gpus, now + seconds))

    def take_released(self, now: float) -> list[tuple[str, int]]:
        """The nodes whose time out of the cluster is over, with their GPUs.

        Those where folds or starts failed are doubtful, and one more failure is enough.
        """
        released = [probation for probation in self._on_probation if probation.until <= now]
        if released:
            self._on_probation = [other for other in self._on_probation if other.until > now]
        for probation in released:
            record = self._record(probation.node)
            record.failures = set(sorted(record.failures)[: BAD - 1])
            record.is_trusted = False
        return [(probation.node, probation.num_gpus) for probation in released]

    def trust(self, node: str) -> None:
        """Let a doubtful node have any complex."""
        self._record(node).is_trusted = True

    def doubtful(self) -> set[str]:
        """Nodes of the cluster that get one small complex at a time."""
        absent = {probation.node for probation in self._on_probation}
        return {
            node
            for node, record in self._records.items()
            if record.num_doubts >= DOUBTFUL and not record.is_trusted and node not in absent
        }

    def has_no_room(self, node: str) -> bool:
        """Whether Ray had no GPUs there for the last groups."""
        return self._record(node).num_no_room >= DOUBTFUL

    def is_bad(self, node: str) -> bool:
        """Whether a node should get nothing more."""
        record = self._record(node)
        seconds = record.no_room_at - record.no_room_since
        has_no_room = record.num_no_room > DOUBTFUL and seconds > self.patience
        return has_no_room or len(record.failures) >= BAD

    def paused(self, now: float) -> set[str]:
        """Nodes on which nothing is started now."""
        return {node for node, record in self._records.items() if record.paused_until > now}

    def next_change(self, now: float) -> float:
        """The time at which the first pause or probation ends; infinite without any."""
        ends = [record.paused_until for record in self._records.values()]
        ends += [probation.until for probation in self._on_probation]
        return min((end for end in ends if end > now), default=float("inf"))

    def _share_no_failure(self, node: str) -> None:
        """Forget what other nodes failed at together with a node: it was that one's fault."""
        shared = self._record(node).failures
        for name, record in self._records.items():
            if name != node:
                record.failures -= shared

    def _record(self, node: str) -> _Record:
        return self._records.setdefault(node, _Record())


def _blamed_nodes(group: GroupState, failure: Failure) -> list[str]:
    """The node that a failure names, or else the group's only one; none if it has several."""
    if failure.node:
        return [failure.node]
    return [node for node, _ in group.placement] if len(group.placement) == 1 else []
