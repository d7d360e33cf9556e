"""The words between scheduler, driver and ranks, and what the scheduler remembers of jobs and
groups.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import Literal

from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import Arithmetic, FoldShape
from foldcp.pipeline.scheduling.placement import Placement

# oom: out of memory. lost: a rank died. hung: past its deadline. error: the program failed.
# invalid: the input is at fault, which every rank saw before any talked to another, so the group
# lives on.
FailureKind = Literal["oom", "worker_died", "timeout", "error", "invalid"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a start or a fold failed.

    `node` is the node whose rank failed, where that is known. `killed` is set when the system
    killed a process to free memory of the machine: then other processes may be at fault, and the
    same fold may succeed later.
    """

    kind: FailureKind
    reason: str
    node: str = ""
    killed: bool = False


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What is the same for every fold of a run."""

    checkpoint: str  # path or name of the weights
    identity: str  # of the weights' content; other weights are refused
    precision: Arithmetic  # with which the network is loaded
    config: RunConfig
    threads: int  # of a rank


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one complex: how, where, when (seconds on the driver's clock), and what came of
    it.
    """

    task: Task
    number: int  # from 1
    setup: FoldShape
    group: int
    placement: Placement
    started: float
    ended: float
    predicted: float  # seconds
    outcome: FailureKind | Literal["done"]
    reason: str
    steps: tuple[str, ...]  # what the ladder changed before this attempt


@dataclass(frozen=True, slots=True)
class Start:
    """Make a group; it must be ready by `deadline`."""

    group: int
    placement: Placement
    deadline: float


@dataclass(frozen=True, slots=True)
class Fold:
    """Let a ready group fold a task; it must be back by `deadline`."""

    group: int
    task: Task
    setup: FoldShape
    number: int
    deadline: float


@dataclass(frozen=True, slots=True)
class Stop:
    """End a group and free its GPUs, however it resists."""

    group: int
    reason: str


Action = Start | Fold | Stop


@dataclass(slots=True, eq=False)
class QueuedTask:
    """A task that has no outcome yet, with the setup of its next attempt."""

    task: Task
    setup: FoldShape
    seconds: float = 0.0  # predicted, for that setup
    attempts: int = 0
    losses: int = 0  # groups that ended while they folded it, through no fault of a node
    timeouts: int = 0  # of them, those that passed their deadline
    kills: int = 0  # groups that were killed to free memory of their machine while they folded it
    avoid: frozenset[str] = (
        frozenset()
    )  # nodes on which it was lost: the next attempt goes elsewhere if it can
    # it lost a group, in this run or an earlier one: another loss says nothing of the node
    suspect: bool = False
    steps: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Ranks it wants."""
        return self.setup.num_ranks


@dataclass(slots=True, eq=False)
class GroupState:
    """Ranks that fold together; `job` is what it folds or was started for."""

    id: int
    placement: Placement
    state: Literal["starting", "idle", "busy", "stopping"]
    since: float
    deadline: float
    job: QueuedTask | None = None
    num_folds: int = 0  # that came back

    @property
    def size(self) -> int:
        """Number of ranks."""
        return sum(count for _, count in self.placement)


@dataclass(slots=True)
class Queue:
    """Waiting jobs by size, the longest of each size last."""

    by_size: dict[int, list[QueuedTask]] = field(default_factory=dict)

    def push(self, job: QueuedTask) -> None:
        """Add a job."""
        bisect.insort(
            self.by_size.setdefault(job.size, []),
            job,
            key=lambda j: (j.seconds, j.task.key),
        )

    def remove(self, job: QueuedTask) -> None:
        """Take out a job; a size without jobs vanishes."""
        self.by_size[job.size].remove(job)
        if not self.by_size[job.size]:
            del self.by_size[job.size]

    def cheapest(self, max_ranks: int) -> QueuedTask | None:
        """The job of the least predicted work that wants at most so many ranks."""
        small = [jobs[0] for size, jobs in self.by_size.items() if size <= max_ranks]
        return min(small, key=lambda job: (job.suspect, job.seconds * job.size), default=None)

    def drain(self) -> list[QueuedTask]:
        """Take out all jobs, the first to be started first."""
        jobs = [
            job
            for size in sorted(self.by_size, reverse=True)
            for job in reversed(self.by_size[size])
        ]
        self.by_size.clear()
        return jobs

    def __len__(self) -> int:
        return sum(map(len, self.by_size.values()))
