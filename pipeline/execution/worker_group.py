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
from foldcp.pipeline.execution.ray_cluster import call_gcs
from foldcp.pipeline.execution.ray_results import GatheredResults
from foldcp.pipeline.execution.recording.result_writer import ResultWriter
from foldcp.pipeline.execution.results import (
    BatchResult,
    DeviceLocation,
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
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

FREE_SECONDS = 0.1  # from the end of a placement group to its GPUs being free, as measured
NODE_LABEL = "ray.io/node-id"
MAX_NAME = 60  # characters of a complex's name in that of a task


@ray.remote(num_cpus=0, max_restarts=0)
class WorkerGroupActor:
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
        self.writer = writer
        self.reporter = ProgressReporter(progress_actor, name)
        self.name = name
        self.placement = placement
        self.worker_config = worker_config
        self.device = device
        self.cpus_per_worker = cpus_per_worker
        self.workers: list[Any] = []
        self.rank_nodes: list[str] = []  # known once the workers have started

    def start(self, timeout: float) -> Ready | Failure:
        """Take the GPUs, start the workers, number them, and load the network.

        `timeout` is in seconds, for the GPUs.
        """
        group = self._make_placement_group()
        if not group.wait(timeout):
            state = placement_group_table(group)["stats"]["scheduling_state"]
            return Failure("error", f"Ray has no room for {self.placement}: {state}")
        for bundle, (_, count) in enumerate(self.placement):
            actor = WorkerActor.options(
                num_cpus=self.cpus_per_worker,
                num_gpus=int(self.device == "cuda"),
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=bundle
                ),
            )
            arguments = (self.worker_config, self.writer, self.name, self.reporter)
            self.workers += [actor.remote(*arguments) for _ in range(count)]
        locations = self._gather([worker.device_location.remote() for worker in self.workers])
        return locations if isinstance(locations, Failure) else self._join(locations)

    def _make_placement_group(self) -> PlacementGroup:
        """A bundle of the resources of all workers on each node."""
        per_worker = {"CPU": self.cpus_per_worker}
        if self.device == "cuda":
            per_worker["GPU"] = 1
        bundles = [
            {resource: amount * count for resource, amount in per_worker.items()}
            for _, count in self.placement
        ]
        strategy = "STRICT_PACK" if len(bundles) == 1 else "STRICT_SPREAD"
        return placement_group(
            bundles,
            strategy=strategy,
            name=self.name,
            bundle_label_selector=[{NODE_LABEL: node} for node, _ in self.placement],
        )

    def _join(self, locations: Sequence[DeviceLocation]) -> Ready | Failure:
        """Number the ranks by node and GPU, as Ray's order means nothing, and let them join."""
        node_order = [node for node, _ in self.placement]

        def position(index: int) -> tuple[int, tuple[int, str]]:
            location = locations[index]
            return node_order.index(location.node), _numeric_order(location.gpu)

        order = sorted(range(len(locations)), key=position)
        self.workers = [self.workers[index] for index in order]
        locations = [locations[index] for index in order]
        self.rank_nodes = [location.node for location in locations]
        addresses = self._gather([self.workers[0].rendezvous_address.remote()])
        if isinstance(addresses, Failure):
            return addresses
        refs = []
        for rank, (worker, location) in enumerate(zip(self.workers, locations, strict=True)):
            gpus = [other.gpu for other in locations if other.node == location.node]
            device = f"cuda:{gpus.index(location.gpu)}" if self.device == "cuda" else "cpu"
            size = len(self.workers)
            refs.append(worker.join.remote(rank, size, addresses[0], device, ",".join(gpus)))
        results = self._gather(refs)
        if isinstance(results, Failure):
            return results
        if failure := _first_failure(results):
            return failure
        return Ready(tuple(locations), results[0].kernels)

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
        if failure := _first_failure(results):
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

    def _gather(self, refs: Sequence[Any]) -> list[Any] | Failure:
        """The results of a call to the ranks, or the root cause of its failure."""
        return GatheredResults(refs, self.rank_nodes).wait()


def task_name(actor: str, complex: Complex, batch: int = 1) -> str:
    """How Ray's dashboard and `ray list tasks` call a fold, and the system its process.

    An actor has one name as long as it lives, so that its task says what it folds.
    """
    name = printable(complex.name).replace("/", "_")[:MAX_NAME]
    others = f" and {batch - 1} more" if batch > 1 else ""
    return f"{actor}.fold {name}{others}"


def _first_failure(results: Sequence[Any] | Failure) -> Failure | None:
    """A failure of the group, or of the first rank that has one."""
    if isinstance(results, Failure):
        return results
    return next((result for result in results if isinstance(result, Failure)), None)


def _numeric_order(gpu: str) -> tuple[int, str]:
    """A key that sorts "9" before "10"."""
    return (int(gpu), "") if gpu.isdigit() else (0, gpu)


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
        self._remove_placement_group()

    def is_gone(self) -> bool:
        """Whether the GPUs of a stopped group are free."""
        assert self.killed_at is not None
        if self._remove_placement_group():
            return False
        return time.monotonic() - self.killed_at > FREE_SECONDS

    def _remove_placement_group(self) -> bool:
        """Ask for the removal of the placement group; whether there still was one.

        The actor may have made it just before it was killed, so that this is asked again.
        """
        tables = call_gcs(lambda: placement_group_table()).values()
        if not any(table["name"] == self.name and table["state"] != "REMOVED" for table in tables):
            return False
        call_gcs(lambda: remove_placement_group(ray.util.get_placement_group(self.name)))
        return True
