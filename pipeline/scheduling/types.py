"""Messages between scheduler, driver and workers.

And the scheduler's record of tasks and worker groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from foldcp.config import Precision
from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import FoldShape
from foldcp.pipeline.scheduling.placement import Placement

# oom: out of memory. worker_died: a worker's process ended. timeout: past its deadline. error: the
# program failed. invalid: the input is at fault, which every rank finds before it communicates with
# any other, so the worker group lives on. no_room: Ray gave a group no GPUs, so it has not begun.
FailureKind = Literal["oom", "worker_died", "timeout", "error", "invalid", "no_room"]


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of a start or a fold.

    `killed` is set when the system killed a process because the machine was out of memory: then
    other processes may be at fault, and the same fold may succeed later. `missing_file` is a file
    of the input that a worker's node does not have.
    """

    kind: FailureKind
    reason: str
    node: str = ""  # whose worker failed, where that is known
    killed: bool = False
    missing_file: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class FoldStep:
    """How far a fold is: its GPUs have done step `done` of `total` of a stage."""

    stage: str
    done: int
    total: int
    seconds: float = 0.0  # since then
    first: int = 0  # steps of the stage that an earlier attempt had done


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The settings that every worker of a run receives at its start."""

    checkpoint: str  # path or name of the weights
    identity: str  # of the weights' content; other weights are refused
    precision: Precision  # with which the network is loaded
    config: RunConfig
    num_threads: int  # of a worker


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at one complex and its outcome. Times are seconds on the driver's clock."""

    task: Task
    number: int  # from 1
    shape: FoldShape
    group: int
    placement: Placement
    started: float
    ended: float
    predicted: float  # seconds
    # stopped: the scheduler ended it, to begin it again on more GPUs or for one that needs these.
    outcome: FailureKind | Literal["done", "stopped"]
    reason: str
    fallbacks: tuple[str, ...]  # changes after earlier attempts, before this one
    first_pass: int = 0  # passes through the trunk that an earlier attempt had made

    @property
    def gpu_seconds(self) -> float:
        """Of its GPUs; its share of those of a batch."""
        return (self.ended - self.started) * self.shape.num_ranks / self.shape.batch


@dataclass(frozen=True, slots=True)
class Start:
    """Start a worker group; it must be ready by `deadline`."""

    group: int
    placement: Placement
    deadline: float


@dataclass(frozen=True, slots=True)
class BatchMember:
    """A task that is folded together with another one, in the same shape."""

    task: Task
    number: int  # of the attempt, from 1


@dataclass(frozen=True, slots=True)
class Fold:
    """Let a ready worker group fold a task, alone or with others; it must be done by `deadline`."""

    group: int
    task: Task
    shape: FoldShape
    number: int  # of the attempt, from 1
    deadline: float
    fallbacks: tuple[str, ...]  # changes after earlier attempts, before this one
    keeps_passes: bool = False  # whether the state of the trunk is kept between its passes
    others: tuple[BatchMember, ...] = ()  # none larger, none after an earlier fallback


@dataclass(frozen=True, slots=True)
class Stop:
    """Kill a worker group and free its GPUs."""

    group: int
    reason: str


Action = Start | Fold | Stop


@dataclass(slots=True, eq=False)
class QueuedTask:
    """A task that has no outcome yet, with the shape of its next attempt."""

    task: Task
    shape: FoldShape
    min_ranks: int = 1  # of any attempt: fewer have not enough memory
    seconds: float = 0.0  # predicted, for that shape
    num_attempts: int = 0
    worker_failures: int = 0  # groups that ended while they folded it, but for lost nodes
    timeouts: int = 0  # of them, those that passed their deadline
    memory_kills: int = 0  # groups killed because their machine was out of memory
    # Nodes on which its group ended: the next attempt goes elsewhere if it can.
    avoid_nodes: frozenset[str] = frozenset()
    # Its group ended, in this run or an earlier one: a further one is not blamed on the node.
    is_suspect: bool = False
    fallbacks: tuple[str, ...] = ()
    num_moves: int = 0  # how often it was begun again on more GPUs
    kept_passes: int = 0  # passes through the trunk whose state an attempt has left
    is_alone: bool = False  # whether it is folded alone, after a batch in which it was has failed
    # Of what is left, corrected by what an attempt has measured, over a whole fold as predicted.
    scale: float = 1.0
    # Since when it has been too large for the nodes that are there; infinite if it is not.
    parked_since: float = math.inf

    # Of the seconds alone, in a batch of as many tasks as pay off.
    batch_share: float = 1.0

    @property
    def size(self) -> int:
        """Number of ranks of its next attempt."""
        return self.shape.num_ranks

    @property
    def gpu_seconds(self) -> float:
        """Predicted, of its next attempt, its share of a batch if it may be in one."""
        return self.size * self.seconds * self.batch_share


@dataclass(slots=True, eq=False)
class GroupState:
    """The scheduler's record of a worker group."""

    id: int
    placement: Placement
    state: Literal["starting", "idle", "busy", "stopping"]
    since: float
    deadline: float
    queued: QueuedTask | None = None  # the task that it folds or was started for
    others: tuple[QueuedTask, ...] = ()  # folded together with it
    num_folds: int = 0  # that it has finished
    expected_end: float = 0.0  # while it starts or folds
    size: int = field(init=False)  # number of ranks

    def __post_init__(self) -> None:
        self.size = sum(count for _, count in self.placement)

    @property
    def members(self) -> tuple[QueuedTask, ...]:
        """All tasks that it folds."""
        return () if self.queued is None else (self.queued, *self.others)

    def has_node(self, node: str) -> bool:
        """Whether some of its ranks are on a node."""
        return any(name == node for name, _ in self.placement)
