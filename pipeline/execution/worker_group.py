"""A worker group: one Ray placement group and the workers in it, which fail together.

The group's actor makes the placement group and its workers, and reports for them. When a worker
dies, fails or runs out of memory the others may wait for it for ever, so nothing is repaired: the
driver kills the actor, whose workers die with it, removes the placement group and makes another
group.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from foldcp.complex import Complex
from foldcp.files import EmbeddedFile
from foldcp.pipeline.execution.monitoring.progress_actor import ProgressReporter
from foldcp.pipeline.execution.prefetch import Prefetched
from foldcp.pipeline.execution.ray_cluster import call_gcs
from foldcp.pipeline.execution.ray_results import GatheredResults, PaeRefs, fetch_pae_blocks
from foldcp.pipeline.execution.recording.result_writer import ResultWriter
from foldcp.pipeline.execution.results import (
    DeviceLocation,
    FoldStats,
    RankResult,
    Ready,
    RemoteFoldResult,
    StagedResult,
)
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

if TYPE_CHECKING:  # so that the actor of a group needs no torch
    from foldcp.predict import Prediction

FREE_SECONDS = 0.1  # from the end of a placement group to its GPUs being free, as measured
NODE_LABEL = "ray.io/node-id"
MAX_NAME = 60  # characters of a complex's name in that of a task


@ray.remote(max_restarts=0)
class WorkerActor:
    """A worker as a Ray actor."""

    def __init__(
        self,
        worker_config: WorkerConfig,
        writer: ResultWriter,
        group: str,
        reporter: ProgressReporter,
    ) -> None:
        """`reporter` and `writer` are for rank 0 of the group."""
        self.worker_config = worker_config
        self.writer = writer
        self.staging = writer.staging_area(group)
        self.reporter = reporter  # for its heartbeat
        self.prediction: Prediction | None = None

    def device_location(self) -> DeviceLocation:
        """The node and the GPU that Ray gave."""
        gpus = ray.get_gpu_ids()
        node = ray.get_runtime_context().get_node_id()
        return DeviceLocation(node, str(gpus[0]) if gpus else "")

    def rendezvous_address(self) -> str:
        """A free address on this machine at which the ranks can join each other."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def join(
        self,
        rank: int,
        size: int,
        rendezvous_address: str,
        device: str,
        visible_gpus: str,
    ) -> Ready | Failure:
        """Join the other ranks, as `Worker.join`.

        `visible_gpus` lists the GPUs of this node that the group has: all its ranks here see the
        same list, as NCCL fails if ranks see only their own.
        """
        if visible_gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible_gpus
        # Imported now, as torch may look at the GPUs; the group's actor never needs it.
        from foldcp.pipeline.execution.monitoring.heartbeat import Heartbeat
        from foldcp.pipeline.execution.worker import Worker
        from foldcp.progress import no_progress

        self.worker = Worker(self.worker_config)
        ready = self.worker.join(rank, size, rendezvous_address, device)
        self.progress = Heartbeat(self.reporter, self.worker.device) if rank == 0 else no_progress
        return ready

    def fold(
        self, task: Task, shape: FoldShape, prefetched: Prefetched | None, state_folder: str
    ) -> RankResult | Failure:
        """Fold, as `Worker.fold`; rank 0 keeps the prediction for `deliver`."""
        if missing := _missing_file(task.complex):
            reason = f"{missing} does not exist on {socket.gethostname()}"
            return Failure("invalid", reason, missing_file=missing)
        inputs = prefetched.get if prefetched else None
        self.progress("features", 0, 1)
        result = self.worker.fold(
            task.complex, shape, task.write, self.progress, inputs, state_folder
        )
        self.progress("writing", 0, 1)
        if isinstance(result, Failure):
            return result
        self.prediction = result.prediction
        pae_refs = {sample: ray.put(blocks) for sample, blocks in result.pae_blocks.items()}
        return RankResult(result.stats, pae_refs)

    def deliver(
        self,
        task: Task,
        shape: FoldShape,
        fallbacks: Sequence[str],
        stats: FoldStats,
        pae_refs: PaeRefs,
    ) -> StagedResult | RemoteFoldResult | Failure:
        """Stage the result of the last fold, which all ranks have finished.

        Where this node does not have the run's folder, or cannot write there, the driver gets the
        prediction.
        """
        prediction = self.prediction
        assert prediction is not None
        self.prediction = None
        if self.writer.sees_folder():
            pae_blocks = partial(fetch_pae_blocks, pae_refs, "the result")
            try:
                return self.writer.stage(
                    self.staging, task, shape, fallbacks, stats, prediction, pae_blocks
                )
            except OSError:  # the driver meets it as well, or writes to a disk that works
                pass
        return RemoteFoldResult(stats, ray.put(prediction), pae_refs)


def _missing_file(complex: Complex) -> str:
    """An alignment or a template that this machine does not have; empty if it has all."""
    sources = [source for chain in complex.chains for source in (chain.msa, chain.paired_msa)]
    sources += [template.path for template in complex.templates]
    for source in sources:
        path = source.path if isinstance(source, EmbeddedFile) else source
        if path is not None and not path.exists():
            return str(path)
    return ""


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

    def _gather(self, refs: Sequence[Any]) -> list[Any] | Failure:
        """The results of a call to the ranks, or the root cause of its failure."""
        return GatheredResults(refs, self.rank_nodes).wait()


def task_name(actor: str, complex: Complex) -> str:
    """How Ray's dashboard and `ray list tasks` call a fold, and the system its process.

    An actor has one name as long as it lives, so that its task says what it folds.
    """
    name = printable(complex.name).replace("/", "_")[:MAX_NAME]
    return f"{actor}.fold {name}"


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
