"""A worker: one rank of a worker group.

It loads the network once and folds many complexes. Without Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard, TypeVar

import numpy as np
import torch

from foldcp.checkpoint.load import build, read_weights
from foldcp.checkpoint.precision import residual_dtype
from foldcp.complex import Complex
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.features.featurize import featurize
from foldcp.features.steering import Constraints, steering_constraints
from foldcp.files import reading
from foldcp.kernels.dispatch import choose_backend
from foldcp.metrics.interface.pae_blocks import PaeBlock
from foldcp.model.trunk.passes import PassKeeper
from foldcp.pipeline.config import RunConfig, WriteConfig
from foldcp.pipeline.execution.memory import (
    peak_bytes,
    reset_peak_bytes,
    wait_for_free_memory,
)
from foldcp.pipeline.execution.results import FoldResult, FoldStats, Ready
from foldcp.pipeline.execution.trunk_state.files import StateIdentity
from foldcp.pipeline.execution.trunk_state.keeper import StateKeeper
from foldcp.pipeline.inputs.validation import msa_settings
from foldcp.pipeline.scheduling.cost_model import FoldShape
from foldcp.pipeline.scheduling.types import Failure, WorkerConfig
from foldcp.pipeline.storage.results.result_rows import written_samples
from foldcp.predict import (
    NO_PASS_KEEPER,
    Prediction,
    Progress,
    Settings,
    fold,
    no_progress,
)
from foldcp.predict_group import fold_group

Folded = TypeVar("Folded")


@dataclass(frozen=True, slots=True)
class FoldInputs:
    """Inputs of the network."""

    features: Features
    constraints: Constraints


class Worker:
    """One rank of a worker group; all its ranks call the same methods in the same order."""

    def __init__(self, worker_config: WorkerConfig) -> None:
        self.worker_config = worker_config
        self.states_failed = False  # whether the state of the trunk could not be kept, on all ranks

    def join(
        self, rank: int, size: int, rendezvous_address: str, device: str = "cpu"
    ) -> Ready | Failure:
        """Join the other ranks and load the network.

        `rendezvous_address` is `tcp://host:port`, `file://path` or `env://`. Returns an `invalid`
        Failure when the checkpoint is not what it was when the run began.
        """
        worker_config = self.worker_config
        self.device = torch.device(device)
        # Threads that wait for work take time from those that launch it.
        torch.set_num_threads(worker_config.num_threads)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            wait_for_free_memory(self.device)
        settings = worker_config.config.model
        sampling = None if settings.sampling == "auto" else settings.sampling
        with ThreadPoolExecutor(1) as other:
            # While the ranks join each other, which takes as long.
            weights = other.submit(
                read_weights, worker_config.checkpoint, self.device, worker_config.identity
            )
            self.cp = ContextParallel.init(rank, size, rendezvous_address, self.device)
            try:
                self.model = build(
                    weights.result(),
                    self.device,
                    choose_backend(settings.kernels, self.device),
                    worker_config.precision,
                    sampling,
                    self.cp,
                    settings.chunk_bytes,
                )
            except ValueError as error:
                return Failure("invalid", str(error))
        return Ready(kernels=self.model.backend.describe())

    def fold(
        self,
        complex: Complex,
        shape: FoldShape,
        write: WriteConfig,
        progress: Progress = no_progress,
        prefetched: Callable[[], FoldInputs | None] | None = None,
        state_folder: str = "",
    ) -> FoldResult | Failure:
        """Fold one complex together with the other ranks.

        `write` says which files the result is to have. `prefetched` returns the inputs if they were
        made beforehand. The state of the trunk is kept in `state_folder` between its passes, and
        taken from there, unless it is empty; its name is the key of the complex. Failures are
        `invalid` when the input is at fault, which every rank finds before it communicates with
        any other, or `oom` (out of memory), after which the other ranks may wait for this one for
        ever. Errors of the program are raised.
        """
        started = time.perf_counter()
        reset_peak_bytes()
        inputs = self._inputs(complex, shape, prefetched)
        if isinstance(inputs, Failure):
            return inputs
        seconds = {"features": time.perf_counter() - started}
        prediction = self._or_out_of_memory(
            lambda: fold(
                self.model,
                inputs.features,
                fold_settings(self.worker_config.config, shape, write),
                progress,
                constraints=inputs.constraints,
                passes=self._pass_keeper(state_folder, inputs.features, shape),
            )
        )
        if isinstance(prediction, Failure):
            return prediction
        return self._checked(inputs.features, prediction, write, seconds)

    def fold_batch(
        self,
        complexes: Sequence[Complex],
        shape: FoldShape,
        write: WriteConfig,
        progress: Progress = no_progress,
        prefetched: Sequence[Callable[[], FoldInputs | None] | None] = (),
    ) -> list[FoldResult | Failure] | Failure:
        """Fold several complexes together, on one rank: the results of all, in their order.

        Arguments as those of `fold`. `invalid` failures are those of single complexes, `oom` is
        one of the batch.
        """
        reset_peak_bytes()
        makers = prefetched or [None] * len(complexes)
        inputs: list[FoldInputs | Failure] = []
        seconds: list[float] = []
        for number, (complex, maker) in enumerate(zip(complexes, makers, strict=True)):
            progress("features", number, len(complexes))
            started = time.perf_counter()
            inputs.append(self._inputs(complex, shape, maker))
            seconds.append(time.perf_counter() - started)
        settings = fold_settings(self.worker_config.config, shape, write)
        group = [made.features for made in inputs if isinstance(made, FoldInputs)]
        out_of_memory = next((made for made in inputs if _is_oom(made)), None)
        if out_of_memory is not None or not group:
            return out_of_memory or [made for made in inputs if isinstance(made, Failure)]
        folded = self._or_out_of_memory(lambda: fold_group(self.model, group, settings, progress))
        if isinstance(folded, Failure):
            return folded
        predictions = iter(folded)
        return [
            made
            if isinstance(made, Failure)
            else self._checked(made.features, next(predictions), write, {"features": own})
            for made, own in zip(inputs, seconds, strict=True)
        ]

    def _inputs(
        self,
        complex: Complex,
        shape: FoldShape,
        prefetched: Callable[[], FoldInputs | None] | None,
    ) -> FoldInputs | Failure:
        """The inputs of the network, made beforehand or now."""
        try:
            inputs = prefetched() if prefetched else None
            return inputs or make_inputs(complex, self.worker_config.config, shape)
        except MemoryError as error:
            return self._out_of_memory(error)
        except ValueError as error:
            return Failure("invalid", str(error))

    def _or_out_of_memory(self, run: Callable[[], Folded]) -> Folded | Failure:
        """What the network makes, or the failure to allocate memory for it."""
        try:
            return run()
        except (torch.OutOfMemoryError, MemoryError) as error:
            return self._out_of_memory(error)
        except RuntimeError as error:
            if "DefaultCPUAllocator" not in str(error):
                raise
            return self._out_of_memory(error)

    def _pass_keeper(self, folder: str, features: Features, shape: FoldShape) -> PassKeeper:
        """What keeps the state of the trunk: nothing without a folder, or after it failed once."""
        if not folder or self.states_failed:
            return NO_PASS_KEEPER
        config = self.worker_config.config
        identity = StateIdentity(
            Path(folder).name,
            shape.precision,
            config.model.seed,
            features.num_msa_rows,
            config.msa.subsample,
            len(features.layout.token_chain),
            str(residual_dtype(shape.precision)),
        )

        def on_failure() -> None:
            self.states_failed = True

        return StateKeeper(Path(folder), identity, self.cp, self.device, on_failure)

    def _checked(
        self,
        features: Features,
        prediction: Prediction,
        write: WriteConfig,
        seconds: dict[str, float],
    ) -> FoldResult | Failure:
        """The result of a fold whose inputs took `seconds`."""
        if not np.isfinite(prediction.coords).all():
            return Failure("invalid", "the network's coordinates are not finite")
        seconds = seconds | prediction.seconds
        stats = FoldStats(seconds, prediction.peak_bytes or peak_bytes(), features.num_msa_rows)
        blocks: dict[int, list[PaeBlock]] = {}
        if write.num_pae_pairs:
            blocks = {sample: [] for sample in written_samples(prediction, write)}
        for block in prediction.pae_blocks:
            if block.sample in blocks:
                blocks[block.sample].append(block)
        prediction = replace(prediction, pae_blocks=())
        return FoldResult(stats, prediction if self.cp.rank == 0 else None, blocks)

    def _out_of_memory(self, error: BaseException) -> Failure:
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        return Failure("oom", f"rank {self.cp.rank}: {first_line}")


def _is_oom(made: FoldInputs | Failure) -> TypeGuard[Failure]:
    return isinstance(made, Failure) and made.kind == "oom"


def make_inputs(complex: Complex, config: RunConfig, shape: FoldShape) -> FoldInputs:
    """The features and constraints of a complex.

    Raises ValueError for any exception that the complex, an alignment or a template causes. A
    MemoryError passes through: it is not the input's fault.
    """
    with reading(f"complex {complex.name}"):
        features = featurize(
            complex,
            msa=msa_settings(config, shape.max_rows),
            seed=config.model.seed,
            max_template_bytes=config.limits.input_bytes,
        )
        return FoldInputs(
            features, steering_constraints(complex, potentials=config.model.potentials)
        )


def fold_settings(config: RunConfig, shape: FoldShape, write: WriteConfig) -> Settings:
    """The settings of the network for one attempt of a run, whose result is to have the files that
    `write` says.
    """
    model = config.model
    return Settings(
        recycling=model.recycling,
        steps=model.steps,
        samples=model.samples,
        parallel_samples=shape.parallel_samples,
        precision=shape.precision,
        msa_subsample=config.msa.subsample,
        potentials=model.potentials,
        seed=model.seed,
        pae_cutoffs=config.scores.pae_cutoffs,
        keep_pairs=bool(write.files),
        kept_pae_pairs=write.num_pae_pairs,
    )
