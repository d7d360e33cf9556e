"""The queue: waiting tasks by group size, and sums over them."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from foldcp.pipeline.scheduling.types import QueuedTask


class Queue:
    """Waiting tasks by group size, the longest of each size last.

    A task's shape and seconds must not change while it is in the queue. To add and to take out a
    task are bisections; the sums are kept.
    """

    def __init__(self) -> None:
        self.by_size: dict[int, list[QueuedTask]] = {}
        self.num_requested = 0  # ranks of all waiting tasks
        self.gpu_seconds = 0.0  # predicted, of all waiting tasks
        self._num_tasks = 0

    def push(self, queued: QueuedTask) -> None:
        """Add a task."""
        bisect.insort(self.by_size.setdefault(queued.size, []), queued, key=_length)
        self._count(queued, 1)

    def push_all(self, tasks: Iterable[QueuedTask]) -> None:
        """Add many tasks."""
        for queued in tasks:
            self.by_size.setdefault(queued.size, []).append(queued)
            self._count(queued, 1)
        for same_size in self.by_size.values():
            same_size.sort(key=_length)

    def remove(self, queued: QueuedTask) -> None:
        """Take out a task; a size without tasks is removed."""
        same_size = self.by_size[queued.size]
        index = bisect.bisect_left(same_size, _length(queued), key=_length)
        assert same_size[index] is queued, f"{queued.task.name} is not in the queue"
        del same_size[index]
        if not same_size:
            del self.by_size[queued.size]
        self._count(queued, -1)

    def shorter(self, queued: QueuedTask, number: int) -> list[QueuedTask]:
        """The waiting tasks of a task's size that come after it, the longest first.

        At most `number` of them; the task itself does not wait.
        """
        same_size = self.by_size.get(queued.size, [])
        end = bisect.bisect_left(same_size, _length(queued), key=_length)
        return same_size[max(0, end - number) : end][::-1]

    def cheapest(self, max_ranks: int, node: str) -> QueuedTask | None:
        """The task with the fewest predicted GPU-seconds of at most `max_ranks` ranks on a node.

        A suspect one only if there is no other, and none that avoids the node.
        """
        shortest = [
            queued
            for size, same_size in self.by_size.items()
            if size <= max_ranks
            for queued in islice((q for q in same_size if node not in q.avoid_nodes), 1)
        ]
        return min(
            shortest,
            key=lambda queued: (queued.is_suspect, queued.seconds * queued.size),
            default=None,
        )

    def tasks(self) -> Iterator[QueuedTask]:
        """All tasks, in no order."""
        return chain.from_iterable(self.by_size.values())

    def drain(self) -> list[QueuedTask]:
        """Take out all tasks, the first to be started first."""
        drained: list[QueuedTask] = []
        for size in sorted(self.by_size, reverse=True):
            drained += reversed(self.by_size[size])
        self.__init__()
        return drained

    def __len__(self) -> int:
        return self._num_tasks

    def _count(self, queued: QueuedTask, sign: int) -> None:
        self._num_tasks += sign
        self.num_requested += sign * queued.size
        self.gpu_seconds += sign * queued.gpu_seconds


def _length(queued: QueuedTask) -> tuple[float, str]:
    return (queued.seconds, queued.task.key)
