"""Prefetched features.

Actors on the nodes make them while the worker groups fold, so that no GPU waits for them. They live
as long as the run, as a process takes longer to start than most features take to make.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from foldcp.complex import Complex
from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.execution import ray_cluster  # noqa: F401  sets Ray's environment
from foldcp.pipeline.execution.signals import end_with_raylet
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.inputs.validation import msa_settings
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape

import ray  # isort: skip  after ray_cluster.py, which sets its environment
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:
    from foldcp.pipeline.execution.worker import FoldInputs

# Features of larger complexes take little of the time of a fold, and much memory.
MAX_TOKENS = 2048
MIN_FOLD_SECONDS = 0.2  # shorter folds are those of tiny networks, whose features take no time
RANKS_PER_MAKER = 4  # features take about a tenth of the time of a fold
# Of small complexes in a batch they take half of it; these are shorter alone, on a GPU.
SMALL_FOLD_SECONDS = 2.0
# Of the object stores of all nodes; as much again may be in use by the folds that run.
STORE_SHARE = 0.4
# B of features, measured: of an MSA row and token, where the network sees deletions, and of a token
# with its atoms.
ROW_BYTES = 2
ROW_BYTES_WITH_DELETIONS = 7
TOKEN_BYTES = 1_300
ASK_SECONDS = 2.0  # in which a maker must answer; otherwise a worker makes the features itself
GET_SECONDS = 30.0  # for which a worker waits for features that are being made


class FeatureMaker:
    """A process that makes features, one complex after the other, in the order of their numbers."""

    def __init__(self, config: RunConfig) -> None:
        end_with_raylet()
        self._config = config
        self._lock = threading.Lock()
        self._last_begun = -1
        self._cancelled: set[int] = set()

    def make(self, number: int, complex: Complex, shape: FoldShape) -> FoldInputs | None:
        """The inputs of a fold; None if that was cancelled, or if the complex is at fault, which is
        reported where it is folded.
        """
        from foldcp.pipeline.execution.worker import make_inputs  # imports torch

        with self._lock:
            self._last_begun = number
            if number in self._cancelled:
                return None
        try:
            return make_inputs(complex, self._config, shape)
        except ValueError:
            return None

    @ray.method(concurrency_group="questions")
    def cancel(self, number: int) -> bool:
        """Do not make some inputs, unless they are made already or being made; whether so."""
        with self._lock:
            if number <= self._last_begun and number not in self._cancelled:
                return False
            self._cancelled.add(number)
            return True


# Questions are answered while features are made. Ray's annotations lack `concurrency_groups`.
_as_actor: Any = ray.remote
FeatureMakerActor = _as_actor(num_cpus=0, max_restarts=-1, concurrency_groups={"questions": 1})(
    FeatureMaker
)


@dataclass(frozen=True, slots=True)
class Prefetched:
    """Inputs that a maker makes: its handle, their number and the reference to them."""

    maker: Any
    number: int
    ref: Any

    def get(self) -> FoldInputs | None:
        """The inputs; None if they are not being made yet, or do not come.

        Then the worker makes them itself, and the maker does not.
        """
        try:
            if ray.get(self.maker.cancel.remote(self.number), timeout=ASK_SECONDS):
                return None
            return ray.get(self.ref, timeout=GET_SECONDS)
        except RayError:  # the maker, or its node, is slow or dead
            return None


def feature_bytes(task: Task, shape: FoldShape, config: RunConfig) -> int:
    """Bytes of the inputs of a fold, about."""
    msa = msa_settings(config, shape.max_rows)
    row_bytes = ROW_BYTES_WITH_DELETIONS if msa.keeps_deletions else ROW_BYTES
    num_rows = min(task.msa_depth, shape.max_rows)
    return task.num_tokens * (row_bytes * num_rows + TOKEN_BYTES)


class FeaturePrefetcher:
    """The makers of all nodes, and the inputs of the tasks that come next."""

    def __init__(self, config: RunConfig, costs: CostModel) -> None:
        self._config = config
        self._costs = costs
        self._makers: dict[tuple[str, int], Any] = {}  # by node and number on it
        self._numbers = count()
        # By task and maximum of MSA rows.
        self._prefetched: dict[tuple[str, int], Prefetched] = {}

    def update(
        self,
        next_tasks: Sequence[tuple[Task, FoldShape]],
        ranks_per_node: Mapping[str, int],
        store_bytes: int,
    ) -> None:
        """Begin to make the inputs of the next tasks, and drop those of all others.

        `ranks_per_node` has the nodes that are there. Of the tasks, which come in the opposite
        order, as many as fit into `store_bytes`, those of the object stores of these nodes.
        """
        former = self._prefetched
        self._prefetched = {}
        bytes_left = STORE_SHARE * store_bytes
        for task, shape in reversed(next_tasks):
            if not ranks_per_node or not self._is_worth_it(task, shape):
                continue
            bytes_left -= feature_bytes(task, shape, self._config)
            if bytes_left < 0:
                break
            key = (task.key, shape.max_rows)
            known = former.pop(key, None)
            self._prefetched[key] = known or self._begin(task, shape, ranks_per_node)
        for unwanted in former.values():
            unwanted.maker.cancel.remote(unwanted.number)

    def take(self, task: Task, shape: FoldShape) -> Prefetched | None:
        """The inputs of a task; None if they were not prefetched."""
        return self._prefetched.pop((task.key, shape.max_rows), None)

    def _is_worth_it(self, task: Task, shape: FoldShape) -> bool:
        seconds = self._costs.seconds(task, shape)
        return task.num_tokens <= MAX_TOKENS and seconds >= MIN_FOLD_SECONDS

    def _may_share(self, task: Task, shape: FoldShape) -> bool:
        """Whether a task is so small that it may be folded together with others."""
        on_gpu = self._costs.hardware.device == "cuda" and self._config.run.batch != 1
        return on_gpu and self._costs.seconds(task, shape) < SMALL_FOLD_SECONDS

    def _begin(self, task: Task, shape: FoldShape, ranks_per_node: Mapping[str, int]) -> Prefetched:
        """Let the makers take turns."""
        number = next(self._numbers)
        ranks_per_maker = 1 if self._may_share(task, shape) else RANKS_PER_MAKER
        places = [
            (node, index)
            for node, num_ranks in ranks_per_node.items()
            for index in range(math.ceil(num_ranks / ranks_per_maker))
        ]
        place = places[number % len(places)]
        if place not in self._makers:
            node, _ = place
            strategy = NodeAffinitySchedulingStrategy(node, soft=False)
            actor = FeatureMakerActor.options(scheduling_strategy=strategy)
            self._makers[place] = actor.remote(self._config)
        maker = self._makers[place]
        return Prefetched(maker, number, maker.make.remote(number, task.complex, shape))
