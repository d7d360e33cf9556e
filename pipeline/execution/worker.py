"""One rank of a group: meets the others, loads the network once, folds many complexes. No Ray
here.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foldcp.checkpoint.load import load
from foldcp.complex import Complex
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.features.featurize import featurize
from foldcp.features.msa.chain_msas import MsaSettings
from foldcp.features.steering import Constraints, steering_constraints
from foldcp.files import reading
from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.scheduling.cost_model import FoldShape
from foldcp.pipeline.scheduling.types import WorkerConfig
from foldcp.predict import Progress, Settings, fold, no_progress

MEMORY_WAIT = 60.0  # seconds in which a killed predecessor's GPU memory must come free
MEMORY_SHARE = 0.9  # of a GPU that must be free before the network is loaded


Inputs = tuple[Features, Constraints]


def nothing() -> None:
    """Nobody made anything."""


class Worker:
    """A process's share of a group. Methods return plain dicts, `outcome` says what came of it."""

    def __init__(self, recipe: WorkerConfig) -> None:
        self.recipe = recipe

    def join(self, rank: int, size: int, meeting: str, device: str = "cpu") -> dict[str, Any]:
        """Meet the other ranks at `meeting` (`tcp://host:port` or `file://path`) and load the
        network.

        `outcome` is `ready`, or `invalid` when the checkpoint is not what it was when the run
        began.
        """
        self.device = torch.device(device)
        torch.set_num_threads(
            self.recipe.threads
        )  # threads that wait for work take time from those that launch it
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            wait_for_memory(self.device)
        self.cp = ContextParallel.init(rank, size, meeting, self.device)
        wanted = self.recipe.config.model.sampling
        try:
            self.model = load(
                self.recipe.checkpoint,
                device=self.device,
                precision=self.recipe.precision,
                sampling=None if wanted == "auto" else wanted,
                cp=self.cp,
                kernels=self.recipe.config.model.kernels,
                chunk_bytes=self.recipe.config.model.chunk_bytes,
                expected=self.recipe.identity,
            )
        except ValueError as error:
            return {"outcome": "invalid", "reason": str(error)}
        return {"outcome": "ready", "kernels": self.model.backend.describe()}

    def fold(
        self,
        complex: Complex,
        setup: FoldShape,
        progress: Progress = no_progress,
        made: Callable[[], Inputs | None] = nothing,
    ) -> dict[str, Any]:
        """Fold one complex together with the other ranks; `made` gives what somebody made of it
        beforehand, if so.

        `outcome` is `done`; `invalid` when the input is at fault, which every rank finds before it
        waits for any other; or `oom`, after which the other ranks may wait for this one for ever.
        Rank 0 returns the prediction.
        """
        config = self.recipe.config
        started = time.perf_counter()
        reset_peak()
        try:
            features, held = made() or inputs_of(complex, config, setup)
        except MemoryError as error:
            return self._out_of_memory(error)
        except ValueError as error:
            return {"outcome": "invalid", "reason": str(error)}
        seconds = {"features": time.perf_counter() - started}
        try:
            prediction = fold(
                self.model,
                features,
                fold_settings(config, setup),
                progress,
                constraints=held,
            )
        except (torch.OutOfMemoryError, MemoryError) as error:
            return self._out_of_memory(error)
        except RuntimeError as error:
            if "DefaultCPUAllocator" not in str(error):
                raise
            return self._out_of_memory(error)
        if not np.isfinite(prediction.coords).all():
            return {
                "outcome": "invalid",
                "reason": "the network's coordinates are not finite",
            }
        answer: dict[str, Any] = {
            "outcome": "done",
            "seconds": {**seconds, **prediction.seconds},
            "peak_bytes": prediction.peak_bytes or peak_bytes(),
            "msa_depth": features.num_msa_rows,
        }
        if self.cp.rank == 0:
            answer |= {"prediction": prediction, "layout": features.layout}
        return answer

    def _out_of_memory(self, error: BaseException) -> dict[str, Any]:
        return {
            "outcome": "oom",
            "reason": f"rank {self.cp.rank}: {_first_line(error)}",
        }


def inputs_of(complex: Complex, config: RunConfig, setup: FoldShape) -> Inputs:
    """What a fold starts from; ValueError if the complex, an alignment or a template is at fault,
    whatever reading it raised. MemoryError passes: that is no fault of the input.
    """
    msa = msa_settings(config, setup.max_rows)
    limit = config.limits.input_bytes
    with reading(f"complex {complex.name}"):
        features = featurize(
            complex,
            msa=msa,
            seed=config.model.seed,
            max_template_bytes=limit,
        )
        return features, steering_constraints(complex, potentials=config.model.potentials)


def msa_settings(config: RunConfig, max_rows: int) -> MsaSettings:
    """How the run reads alignments, with at most `max_rows` rows in all."""
    msa = config.msa
    return MsaSettings(
        max_file_rows=msa.max_rows,
        max_paired=min(msa.max_rows, max_rows),
        max_rows=max_rows,
        corrected=msa.corrected,
        max_bytes=config.limits.msa_bytes,
    )


def fold_settings(config: RunConfig, setup: FoldShape) -> Settings:
    """The run's settings and one attempt's setup, as `fold` takes them."""
    model = config.model
    return Settings(
        recycling=model.recycling,
        steps=model.steps,
        samples=model.samples,
        parallel_samples=setup.parallel_samples,
        precision=setup.precision,
        msa_subsample=config.msa.subsample,
        potentials=model.potentials,
        seed=model.seed,
        keep_pairs=bool(config.write),
    )


def wait_for_memory(device: torch.device) -> None:
    """Wait until the memory of a group that was killed on this GPU is free again; later than
    that we try our luck.
    """
    end = time.monotonic() + MEMORY_WAIT
    while time.monotonic() < end:
        free, total = torch.cuda.mem_get_info(device)
        if free >= MEMORY_SHARE * total:
            return
        time.sleep(0.5)


def reset_peak() -> None:
    """Begin a new measurement of this process's peak memory, where the system can (Linux)."""
    peak = Path("/proc/self/clear_refs")
    if os.access(peak, os.W_OK):
        peak.write_text("5")


def peak_bytes() -> int:
    """This process's peak memory since `reset_peak`; since its start where the system knows no
    better.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
