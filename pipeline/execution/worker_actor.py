"""A worker as a Ray actor: where it is, its reports, and what becomes of its results."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from foldcp.complex import Complex
from foldcp.files import EmbeddedFile
from foldcp.pipeline.execution.monitoring.progress_actor import ProgressReporter
from foldcp.pipeline.execution.prefetch import Prefetched
from foldcp.pipeline.execution.ranks.rank_process import RankProcess
from foldcp.pipeline.execution.ray_results import PaeRefs, fetch_pae_blocks
from foldcp.pipeline.execution.recording.result_writer import ResultWriter
from foldcp.pipeline.execution.results import (
    BatchResult,
    ComplexResult,
    FoldResult,
    FoldStats,
    RankResult,
    Ready,
    RemoteFoldResult,
    StagedResult,
)
from foldcp.pipeline.execution.signals import end_with_raylet
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import FoldShape
from foldcp.pipeline.scheduling.types import Failure, WorkerConfig

import ray  # isort: skip  after ray_results.py, which sets its environment

if TYPE_CHECKING:  # so that the actor of a group needs no torch
    from foldcp.predict import Prediction


DELIVERIES = 4  # of a batch at a time: most of the time of one is waiting for the disk


@ray.remote(max_restarts=0)
class WorkerActor(RankProcess):
    """A worker as a Ray actor."""

    def __init__(
        self,
        worker_config: WorkerConfig,
        writer: ResultWriter,
        group: str,
        reporter: ProgressReporter,
    ) -> None:
        """`reporter` and `writer` are for rank 0 of the group."""
        end_with_raylet()
        self.worker_config = worker_config
        self.writer = writer
        self.staging = writer.staging_area(group)
        self.reporter = reporter  # for its heartbeat
        self.prediction: Prediction | None = None

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
        if failure := _missing_failure(task):
            return failure
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

    def fold_batch(
        self, tasks: Sequence[Task], shape: FoldShape, prefetched: Sequence[Prefetched | None]
    ) -> BatchResult | Failure:
        """Fold several complexes together, as `Worker.fold_batch`, and deliver each; one rank."""
        missing = [_missing_failure(task) for task in tasks]
        present = [number for number, failure in enumerate(missing) if failure is None]
        makers = [prefetched[number] for number in present]
        folded = self.worker.fold_batch(
            [tasks[number].complex for number in present],
            shape,
            tasks[0].write,
            self.progress,
            [maker.get if maker else None for maker in makers],
        )
        self.progress("writing", 0, 1)
        if isinstance(folded, Failure):
            return folded
        results: list[ComplexResult | None] = [*missing]
        with ThreadPoolExecutor(DELIVERIES) as threads:
            delivered = threads.map(
                lambda number, result: self._delivered_alone(tasks[number], shape, result),
                present,
                folded,
            )
            for number, result in zip(present, delivered, strict=True):
                results[number] = result
        return BatchResult(tuple(result for result in results if result is not None))

    def _delivered_alone(
        self, task: Task, shape: FoldShape, result: FoldResult | Failure
    ) -> ComplexResult:
        """Deliver the result of the only rank."""
        if isinstance(result, Failure):
            return result
        assert result.prediction is not None
        pae_refs = {sample: [ray.put(blocks)] for sample, blocks in result.pae_blocks.items()}
        return self._delivered(task, shape, (), result.stats, result.prediction, pae_refs)

    def deliver(
        self,
        task: Task,
        shape: FoldShape,
        fallbacks: Sequence[str],
        stats: FoldStats,
        pae_refs: PaeRefs,
    ) -> StagedResult | RemoteFoldResult | Failure:
        """Stage the result of the last fold, which all ranks have finished."""
        prediction = self.prediction
        assert prediction is not None
        self.prediction = None
        return self._delivered(task, shape, fallbacks, stats, prediction, pae_refs)

    def _delivered(
        self,
        task: Task,
        shape: FoldShape,
        fallbacks: Sequence[str],
        stats: FoldStats,
        prediction: Prediction,
        pae_refs: PaeRefs,
    ) -> StagedResult | RemoteFoldResult | Failure:
        """Stage a result.

        Where this node does not have the run's folder, or cannot write there, the driver gets the
        prediction.
        """
        if self.writer.sees_folder():
            pae_blocks = partial(fetch_pae_blocks, pae_refs, "the result")
            try:
                return self.writer.stage(
                    self.staging, task, shape, fallbacks, stats, prediction, pae_blocks
                )
            except OSError:  # the driver meets it as well, or writes to a disk that works
                pass
        return RemoteFoldResult(stats, ray.put(prediction), pae_refs)


def _missing_failure(task: Task) -> Failure | None:
    """The failure of a task that has a file which this machine does not have."""
    missing = _missing_file(task.complex)
    if not missing:
        return None
    reason = f"{missing} does not exist on {socket.gethostname()}"
    return Failure("invalid", reason, missing_file=missing)


def _missing_file(complex: Complex) -> str:
    """An alignment or a template that this machine does not have; empty if it has all."""
    sources = [source for chain in complex.chains for source in (chain.msa, chain.paired_msa)]
    sources += [template.path for template in complex.templates]
    for source in sources:
        path = source.path if isinstance(source, EmbeddedFile) else source
        if path is not None and not path.exists():
            return str(path)
    return ""
