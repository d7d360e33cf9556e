"""The worker groups that exist, by state, by node, and in the order of their ends."""

from __future__ import annotations

import bisect
import heapq
import math
from collections import Counter
from collections.abc import Iterator, ValuesView
from contextlib import contextmanager
from itertools import islice

from foldcp.pipeline.scheduling.types import GroupState

# A group that is late is expected to need this share of the time that it has taken so far.
OVERRUN = 0.25


class Groups:
    """The scheduler's record of all worker groups; changes of state go through it."""

    def __init__(self) -> None:
        self._by_id: dict[int, GroupState] = {}
        self._on_node: dict[str, dict[int, GroupState]] = {}
        self._idle: dict[int, dict[int, GroupState]] = {}  # without a task, by size
        self._ready: dict[int, GroupState] = {}  # with the task that they were started for
        self._stopping: dict[int, GroupState] = {}
        self._ends: list[tuple[float, int]] = []  # expected, of groups that start or fold
        self._deadlines: list[tuple[float, int]] = []  # a heap; some are out of date
        self._gpu_ends = 0.0  # sum over groups that start or fold: GPUs times expected end
        self._num_active_gpus = 0
        self.num_unused_gpus = 0  # of groups without a task or being stopped
        self.num_busy: Counter[int] = Counter()  # groups that fold, by size

    def __getitem__(self, number: int) -> GroupState:
        return self._by_id[number]

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, number: int) -> GroupState | None:
        """The group of a number, if it still exists."""
        return self._by_id.get(number)

    def values(self) -> ValuesView[GroupState]:
        """All groups."""
        return self._by_id.values()

    def add(self, group: GroupState) -> None:
        """Add a new group."""
        self._by_id[group.id] = group
        for node, _ in group.placement:
            self._on_node.setdefault(node, {})[group.id] = group
        self._enter(group)

    def pop(self, number: int) -> GroupState:
        """Remove a group that has been stopped."""
        group = self._by_id.pop(number)
        assert group.state == "stopping"
        self._leave(group)
        for node, _ in group.placement:
            del self._on_node[node][number]
        return group

    @contextmanager
    def changing(self, group: GroupState) -> Iterator[None]:
        """Within it a group's state, task, expected end and deadline may be changed."""
        self._leave(group)
        yield
        self._enter(group)

    def expect(self, group: GroupState, end: float) -> None:
        """Change the time at which a group that folds is expected to be idle."""
        del self._ends[bisect.bisect_left(self._ends, (group.expected_end, group.id))]
        self._gpu_ends += group.size * (end - group.expected_end)
        group.expected_end = end
        bisect.insort(self._ends, (end, group.id))

    def on_node(self, node: str) -> list[GroupState]:
        """The groups with a rank on a node."""
        return list(self._on_node.get(node, {}).values())

    def ready(self) -> list[GroupState]:
        """Groups that have started, with the task that they were started for."""
        return list(self._ready.values())

    def stopping(self) -> list[GroupState]:
        """Groups whose GPUs are free in a moment."""
        return list(self._stopping.values())

    def idle(self) -> list[GroupState]:
        """Groups without a task, the smallest first."""
        return [group for size in sorted(self._idle) for group in self._idle[size].values()]

    def idle_sizes(self) -> list[int]:
        """Sizes of groups without a task, the smallest first."""
        return sorted(self._idle)

    def idle_of_size(self, size: int) -> Iterator[GroupState]:
        """Groups of a size without a task."""
        return iter(self._idle.get(size, {}).values())

    @property
    def any_working(self) -> bool:
        """Whether some group has a task."""
        return bool(self._ends or self._ready)

    @property
    def has_idle(self) -> bool:
        """Whether some group has no task."""
        return bool(self._idle)

    def overdue(self, now: float) -> list[GroupState]:
        """Groups whose deadline has passed."""
        found: list[GroupState] = []
        while self.next_deadline() <= now:
            _, number = heapq.heappop(self._deadlines)
            found.append(self._by_id[number])
        return found

    def next_deadline(self) -> float:
        """The first deadline of a group that starts or folds; infinite without any."""
        while self._deadlines:
            deadline, number = self._deadlines[0]
            group = self._by_id.get(number)
            if group and group.state in ("starting", "busy") and group.deadline == deadline:
                return deadline
            heapq.heappop(self._deadlines)
        return math.inf

    def gpu_seconds_left(self, now: float) -> float:
        """GPU-seconds until the expected ends of all groups that start or fold."""
        return max(0.0, self._gpu_ends - self._num_active_gpus * now)

    def in_order_of_end(self, now: float) -> Iterator[tuple[float, GroupState]]:
        """Groups that start or fold, with the time at which each is expected to be idle.

        One that outlasts its prediction is expected to go on for a while, but not beyond its
        deadline.
        """
        first = bisect.bisect_left(self._ends, (now, 0))
        late = sorted((self._late_end(number, now), number) for _, number in self._ends[:first])
        for time, number in heapq.merge(late, islice(self._ends, first, None)):
            yield time, self._by_id[number]

    def _late_end(self, number: int, now: float) -> float:
        group = self._by_id[number]
        return max(now, min(group.deadline, now + OVERRUN * (now - group.since)))

    def _enter(self, group: GroupState) -> None:
        """Index a group under its state."""
        if group.state in ("starting", "busy"):
            bisect.insort(self._ends, (group.expected_end, group.id))
            heapq.heappush(self._deadlines, (group.deadline, group.id))
            self._gpu_ends += group.size * group.expected_end
            self._num_active_gpus += group.size
            self.num_busy[group.size] += group.state == "busy"
        elif group.state == "stopping":
            self._stopping[group.id] = group
            self.num_unused_gpus += group.size
        elif group.queued is not None:
            self._ready[group.id] = group
        else:
            self._idle.setdefault(group.size, {})[group.id] = group
            self.num_unused_gpus += group.size

    def _leave(self, group: GroupState) -> None:
        """Remove a group from the index of its state."""
        if group.state in ("starting", "busy"):
            del self._ends[bisect.bisect_left(self._ends, (group.expected_end, group.id))]
            self._gpu_ends -= group.size * group.expected_end
            self._num_active_gpus -= group.size
            self.num_busy[group.size] -= group.state == "busy"
        elif group.state == "stopping":
            del self._stopping[group.id]
            self.num_unused_gpus -= group.size
        elif group.queued is not None:
            del self._ready[group.id]
        else:
            self.num_unused_gpus -= group.size
            same_size = self._idle[group.size]
            del same_size[group.id]
            if not same_size:
                del self._idle[group.size]
