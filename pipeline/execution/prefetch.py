"""Prefetched features.

They are made by Ray tasks while the worker groups fold, so that no GPU waits for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from foldcp.complex import Complex
from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.execution import ray_cluster  # noqa: F401  sets Ray's environment
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape

import ray  # isort: skip  after ray_cluster.py, which sets its environment
from ray.exceptions import RayError

if TYPE_CHECKING:
    from foldcp.pipeline.execution.worker import FoldInputs

# Features of larger complexes take little of the time of a fold, and much memory.
MAX_TOKENS = 2048
# Before a shorter fold, starting a process takes as long as making the features.
MIN_FOLD_SECONDS = 1.0
GET_SECONDS = 5.0  # for which a worker waits; after that it makes the features itself


@ray.remote(num_cpus=0, max_retries=0)
def _make_inputs(complex: Complex, config: RunConfig, shape: FoldShape) -> FoldInputs | None:
    """The inputs of a fold; None if the complex is at fault.

    That is reported where it is folded.
    """
    from foldcp.pipeline.execution.worker import make_inputs  # imports torch

    try:
        return make_inputs(complex, config, shape)
    except ValueError:
        return None


class FeaturePrefetcher:
    """References to the inputs of the tasks that come next, by task and maximum of MSA rows."""

    def __init__(self, config: RunConfig, costs: CostModel) -> None:
        self._config = config
        self._costs = costs
        self._refs: dict[tuple[str, int], Any] = {}

    def update(self, next_tasks: Iterable[tuple[Task, FoldShape]]) -> None:
        """Begin to make the inputs of the next tasks, and drop those of all others."""
        refs: dict[tuple[str, int], Any] = {}
        for task, shape in next_tasks:
            is_slow = self._costs.seconds(task, shape) >= MIN_FOLD_SECONDS
            if task.num_tokens <= MAX_TOKENS and is_slow:
                key = (task.key, shape.max_rows)
                known = self._refs.get(key)
                refs[key] = known or _make_inputs.remote(task.complex, self._config, shape)
        self._refs = refs

    def take(self, task: Task, shape: FoldShape) -> list[Any]:
        """A list of the reference to a task's inputs; empty if they were not prefetched."""
        ref = self._refs.pop((task.key, shape.max_rows), None)
        return [] if ref is None else [ref]


def get_prefetched(refs: Sequence[Any]) -> FoldInputs | None:
    """The inputs that `FeaturePrefetcher.take` refers to.

    None if there are none, or they do not come in time.
    """
    try:
        return ray.get(refs[0], timeout=GET_SECONDS) if refs else None
    except RayError:
        return None
