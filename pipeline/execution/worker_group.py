"""A worker group: one Ray placement group and the workers in it, which fail together.

The group's actor makes the placement group and its workers, and reports for them. When a worker
dies, fails or runs out of memory the others may wait for it for ever, so nothing is repaired: the
driver kills the actor, whose workers die with it, removes the placement group and makes another
group.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from foldcp.complex import Complex
from foldcp.pipeline.execution.monitoring.progress_actor import ProgressReporter
from foldcp.pipeline.execution.prefetch import Prefetched
from foldcp.pipeline.execution.ranks.rank_group import (
    FREE_SECONDS,
    RankGroup,
    first_failure,
    remove_group,
)
from foldcp.pipeline.execution.recording.result_writer import ResultWriter
from foldcp.pipeline.execution.results import (
    BatchResult,
    RankResult,
    Ready,
    RemoteFoldResult,
    StagedResult,
)
from foldcp.pipeline.execution.signals import end_with_raylet
from foldcp.pipeline.execution.worker_actor import WorkerActor
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import FoldShape
from foldcp.pipeline.scheduling.placement import Placement
from foldcp.pipeline.scheduling.types import Failure, WorkerConfig
from foldcp.printable import printable

import ray  # isort: skip  after ray_cluster.py, which sets its environment
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

MAX_NAME = 60  # characters of a complex's name in that of a task


@ray.remote(num_cpus=0, max_restarts=0)
class WorkerGroupActor(RankGroup):
    """Owns a placement group and its workers."""

    def __init__(
        self,
        name: str,
        placement: Placement,
        worker_config: WorkerConfig,
        writer: ResultWriter,
        device: str,
        cpus_per_worker: float,
        progress_actor: Any,
    ) -> None:
        end_with_raylet()
        super().__init__(name, placement, device, cpus_per_worker)
        self.writer = writer
        self.reporter = ProgressReporter(progress_actor, name)
        self.worker_config = worker_config

    def start(self, timeout: float) -> Ready | Failure:
        """Start the workers, which load the network; `timeout` as in `start_workers`."""
        arguments = (self.worker_config, self.writer, self.name, self.reporter)
        return self.start_workers(WorkerActor, arguments, timeout)

    def fold(
        self,
        task: Task,
        shape: FoldShape,
        fallbacks: Sequence[str],
        prefetched: Prefetched | None,
        state_folder: str,
    ) -> StagedResult | RemoteFoldResult | Failure:
        """Fold on all ranks; rank 0 delivers the result, with the PAE of all and the largest peak.

        It counts only if every rank has finished.
        """
        name = task_name("WorkerActor", task.complex)
        results = self._gather(
            [
                worker.fold.options(name=name).remote(task, shape, prefetched, state_folder)
                for worker in self.workers
            ]
        )
        if isinstance(results, Failure):
            return results
        if failure := first_failure(results):
            return failure
        first: RankResult = results[0]
        peak_bytes = max(result.stats.peak_bytes for result in results)
        stats = replace(first.stats, peak_bytes=peak_bytes)
        pae_refs = {
            sample: [result.pae_refs[sample] for result in results] for sample in first.pae_refs
        }
        delivered = self._gather(
            [self.workers[0].deliver.remote(task, shape, fallbacks, stats, pae_refs)]
        )
        return delivered if isinstance(delivered, Failure) else delivered[0]

    def fold_batch(
        self,
        tasks: Sequence[Task],
        shape: FoldShape,
        prefetched: Sequence[Prefetched | None],
    ) -> BatchResult | Failure:
        """Fold several tasks together on the only rank, which delivers each result."""
        (worker,) = self.workers
        name = task_name("WorkerActor", tasks[0].complex, len(tasks))
        fold = worker.fold_batch.options(name=name)
        results = self._gather([fold.remote(tasks, shape, prefetched)])
        return results if isinstance(results, Failure) else results[0]


def task_name(actor: str, complex: Complex, batch: int = 1) -> str:
    """How Ray's dashboard and `ray list tasks` call a fold, and the system its process.

    An actor has one name as long as it lives, so that its task says what it folds.
    """
    name = printable(complex.name).replace("/", "_")[:MAX_NAME]
    others = f" and {batch - 1} more" if batch > 1 else ""
    return f"{actor}.fold {name}{others}"


class WorkerGroupHandle:
    """The driver's handle of a worker group."""

    def __init__(
        self,
        name: str,
        placement: Placement,
        worker_config: WorkerConfig,
        writer: ResultWriter,
        device: str,
        cpus_per_worker: float,
        progress_actor: Any,
    ) -> None:
        self.name = name
        self.killed_at: float | None = None
        first_node, _ = placement[0]
        affinity = NodeAffinitySchedulingStrategy(first_node, soft=False)
        self._actor: Any = WorkerGroupActor.options(name=name, scheduling_strategy=affinity).remote(
            name, placement, worker_config, writer, device, cpus_per_worker, progress_actor
        )

    def start(self, timeout: float) -> Any:
        """Reference to the result of a start."""
        return self._actor.start.remote(timeout)

    def fold(
        self,
        task: Task,
        shape: FoldShape,
        fallbacks: Sequence[str],
        prefetched: Prefetched | None,
        state_folder: str,
    ) -> Any:
        """Reference to the result of a fold.

        `prefetched` is from `FeaturePrefetcher.take`, `state_folder` as in `Worker.fold`.
        """
        fold = self._actor.fold.options(name=task_name("WorkerGroupActor", task.complex))
        return fold.remote(task, shape, fallbacks, prefetched, state_folder)

    def fold_batch(
        self,
        tasks: Sequence[Task],
        shape: FoldShape,
        prefetched: Sequence[Prefetched | None],
    ) -> Any:
        """Reference to the result of a fold of several tasks together."""
        name = task_name("WorkerGroupActor", tasks[0].complex, len(tasks))
        return self._actor.fold_batch.options(name=name).remote(tasks, shape, prefetched)

    def kill(self) -> None:
        """Kill the actor and with it the workers, also busy ones. Does not wait for Ray."""
        self.killed_at = time.monotonic()
        ray.kill(self._actor)

    def stop(self) -> None:
        """Kill the actor and its workers, and free their GPUs."""
        self.kill()
        remove_group(self.name)

    def is_gone(self) -> bool:
        """Whether the GPUs of a stopped group are free."""
        assert self.killed_at is not None
        # Asked for again, as the actor may have made it just before it was killed.
        if remove_group(self.name):
            return False
        return time.monotonic() - self.killed_at > FREE_SECONDS
