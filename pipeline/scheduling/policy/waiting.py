"""What waits: the queue, tasks that come after all others, and those that fit no group at present.

Says of which size a task's group shall be, and chooses again when nodes come or go.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import compress

from foldcp.pipeline.config import RunSection
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape
from foldcp.pipeline.scheduling.group_size import (
    CostCache,
    assign_group_sizes,
    cost_cache,
    smallest_shape,
    too_large_reason,
)
from foldcp.pipeline.scheduling.placement import Cluster
from foldcp.pipeline.scheduling.policy.batches import can_share
from foldcp.pipeline.scheduling.policy.fold_progress import StepTimes
from foldcp.pipeline.scheduling.queue import Queue
from foldcp.pipeline.scheduling.types import QueuedTask


class Waiting:
    """Tasks without an outcome that no group has.

    `too_large` are those that no group of the cluster could hold at the start, with the reason.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        costs: CostModel,
        cluster: Cluster,
        settings: RunSection,
        suspects: Collection[str],
        kept_passes: Mapping[str, int],
        alone: Collection[str],
    ) -> None:
        self.costs = costs
        self.cluster = cluster
        self.settings = settings
        self.queue = Queue()
        self.last: list[QueuedTask] = []  # queued so late that they end with the run
        self.parked: list[QueuedTask] = []  # too large for the nodes that are left
        self.too_large: list[tuple[Task, str]] = []
        self.cache = self._new_cache()
        fitting: list[QueuedTask] = []
        shapes: dict[tuple[int, int], FoldShape | None] = {}  # by what the bytes depend on
        for task in tasks:
            size = (task.num_tokens, task.msa_depth)
            if size not in shapes:
                shapes[size] = self._smallest_shape(task)
            shape = shapes[size]
            if shape is None:
                self.too_large.append((task, too_large_reason(costs, task, self.max_ranks)))
            else:
                is_suspect = task.key in suspects
                queued = QueuedTask(task, shape, shape.num_ranks, is_suspect=is_suspect)
                queued.is_alone = task.key in alone
                if task.key in kept_passes:
                    times = StepTimes.predicted(costs, task, shape)
                    queued.kept_passes = min(kept_passes[task.key], times.num_passes - 1)
                    queued.scale = times.share_left(queued.kept_passes)
                fitting.append(queued)
        self._choose_sizes(fitting)
        self.last = [queued for queued in fitting if queued.is_suspect]
        self.queue.push_all(queued for queued in fitting if not queued.is_suspect)

    def __len__(self) -> int:
        return len(self.queue) + len(self.last) + len(self.parked)

    @property
    def max_ranks(self) -> int:
        """Ranks of the largest group that may be made."""
        num_gpus = self.cluster.num_gpus
        return min(self.settings.max_group or num_gpus, num_gpus)

    @property
    def gpu_seconds(self) -> float:
        """Predicted, of all these tasks."""
        others = (*self.last, *self.parked)
        return self.queue.gpu_seconds + sum(queued.gpu_seconds for queued in others)

    def seconds(self, queued: QueuedTask) -> float:
        """Predicted, of the next attempt of a task in its present shape."""
        return self.cache.seconds(queued.task, queued.shape) * queued.scale

    def _predict(self, queued: QueuedTask) -> None:
        """Predict the seconds of the next attempt of a task, and its share of a batch."""
        queued.seconds = self.seconds(queued)
        share = self.cache.share(queued.task, queued.shape)
        queued.batch_share = share if can_share(queued) else 1.0

    def push(self, queued: QueuedTask, now: float) -> None:
        """Queue a task, for a smaller group if its own is no longer possible, or park it."""
        queued.shape = replace(queued.shape, batch=1)
        if not self._fits(queued):
            self._park(queued, now)
            return
        if queued.size > self.max_ranks:
            queued.shape = replace(queued.shape, num_ranks=self.max_ranks)
        self._predict(queued)
        self.queue.push(queued)

    def push_last(self, now: float, seconds_left: float) -> None:
        """Queue those of the tasks that come last which take as long as the others together.

        They end with the run then; `seconds_left` is the time that it takes without them.
        """
        if not self.last:
            return
        is_due = [
            queued.seconds + self.costs.hardware.start_seconds >= seconds_left
            for queued in self.last
        ]
        due = list(compress(self.last, is_due))
        self.last = [queued for queued, is_now in zip(self.last, is_due, strict=True) if not is_now]
        for queued in due:
            self.push(queued, now)

    def set_size(self, queued: QueuedTask, num_ranks: int) -> None:
        """Change the size of a task in the queue."""
        self.queue.remove(queued)
        queued.shape = replace(queued.shape, num_ranks=num_ranks)
        self._predict(queued)
        self.queue.push(queued)

    def learn(self, costs: CostModel, now: float) -> None:
        """Choose all sizes again with a cost model that has learned, its precision apart.

        What about as many bytes were too much for gets more ranks.
        """
        self.costs = costs
        if costs.memory_limits:
            for queued in [*self.queue.tasks(), *self.last, *self.parked]:
                queued.min_ranks = self._least_ranks(queued)
        self.resize(now)

    def resize(self, now: float) -> None:
        """Choose all sizes again, after nodes have come or gone."""
        self.cache = self._new_cache()
        waiting = [*self.queue.drain(), *self.parked]
        self.parked.clear()
        fitting: list[QueuedTask] = []
        for queued in waiting:
            if self._fits(queued):
                fitting.append(queued)
            else:
                self._park(queued, now)
        self._choose_sizes([*fitting, *filter(self._fits, self.last)])
        self.queue.push_all(fitting)

    def patience_ends(self) -> float:
        """The time at which a parked task has waited long enough; infinite without any."""
        return min(map(self._patience_end, self.parked), default=math.inf)

    def take_impatient(self, now: float) -> list[tuple[QueuedTask, str]]:
        """Take out the parked tasks that have waited long enough, each with the reason."""
        taken = [queued for queued in self.parked if self._patience_end(queued) <= now]
        self.parked = [queued for queued in self.parked if self._patience_end(queued) > now]
        waited = f"no node came within {self.settings.node_wait:g} s (run.node_wait)"
        return [(queued, f"{self._too_large_reason(queued)}; {waited}") for queued in taken]

    def _patience_end(self, queued: QueuedTask) -> float:
        return queued.parked_since + self.settings.node_wait

    def _too_large_reason(self, queued: QueuedTask) -> str:
        """The reason why a parked task cannot be folded."""
        return too_large_reason(self.costs, queued.task, self.max_ranks)

    def _fits(self, queued: QueuedTask) -> bool:
        """Whether some group holds a task.

        One that ran out of memory wants more ranks than the cost model says that it needs.
        """
        if queued.min_ranks <= self.max_ranks:
            return True
        if not self.max_ranks:
            return False
        largest = replace(queued.shape, num_ranks=self.max_ranks)
        if self.costs.least_bytes(queued.task, largest) > self.costs.hardware.memory:
            return False
        queued.min_ranks = self.max_ranks
        return True

    def _smallest_shape(self, task: Task) -> FoldShape | None:
        """The smallest group that holds a task; the largest one where all are in doubt.

        None where none of them has enough memory.
        """
        shape = smallest_shape(self.costs, task, self.max_ranks)
        if shape is None and self.costs.memory_limits:
            hopeful = replace(self.costs, memory_limits={})
            shape = smallest_shape(hopeful, task, self.max_ranks)
            return replace(shape, num_ranks=self.max_ranks) if shape else None
        return shape

    def _least_ranks(self, queued: QueuedTask) -> int:
        """The fewest ranks on which a task may fit, after others have run out of memory."""
        for num_ranks in range(queued.min_ranks, self.max_ranks + 1):
            if self.costs.fits(queued.task, replace(queued.shape, num_ranks=num_ranks)):
                return num_ranks
        return max(queued.min_ranks, self.max_ranks)

    def _park(self, queued: QueuedTask, now: float) -> None:
        """Let a task wait for nodes; the time counts from its last fold."""
        queued.parked_since = min(queued.parked_since, now)
        self.parked.append(queued)

    def _choose_sizes(self, tasks: Sequence[QueuedTask]) -> None:
        """Choose the group size of tasks that are not in the queue."""
        work = [
            (queued.task, replace(queued.shape, num_ranks=queued.min_ranks)) for queued in tasks
        ]
        shapes = assign_group_sizes(self.cache, work, self.cluster.num_gpus)
        for queued, shape in zip(tasks, shapes, strict=True):
            queued.shape = shape
            self._predict(queued)

    def _new_cache(self) -> CostCache:
        return cost_cache(self.costs, self.max_ranks, self.settings)
