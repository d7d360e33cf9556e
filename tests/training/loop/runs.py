"""Training runs of a tiny network on examples that are made up."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import torch

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.distributed.mesh import Mesh
from foldcp.training.example import TrainingExample
from foldcp.training.loop.network import Network, make_network
from foldcp.training.loop.settings import (
    CheckpointSettings,
    ModelSettings,
    OptimizerSettings,
    TrainSettings,
)
from foldcp.training.loop.trainer import Hooks, StepReport, Trainer
from foldcp.training.settings import LossWeights, TrainingSettings
from tests.training.examples import example

CPU = torch.device("cpu")
ALONE = Mesh(0, 1, ContextParallel(), CPU)

SETTINGS = TrainSettings(
    model=ModelSettings(init="untrained:tiny"),
    step=TrainingSettings(
        weights=LossWeights(confidence=0.1),
        recycling=1,
        multiplicity=2,
        sampling_steps=2,
        checkpointing="none",
    ),
    optimizer=OptimizerSettings(max_rate=1e-3, warmup_steps=4, ema=0.9),
    checkpoint=CheckpointSettings(every=3, keep=2),
    examples_per_step=2,
    max_steps=10,
)


@cache
def made_up(seed: int) -> TrainingExample:
    return replace(example(seed=seed), name=f"example {seed}")


def draw_all(seeds: Iterable[int]) -> Iterator[TrainingExample]:
    return (made_up(seed % 5) for seed in seeds)


@dataclass
class Recorder:
    """The reports of the first rank, which may kill its process at a step."""

    killed_at: int = 0
    reports: list[StepReport] = field(default_factory=list)

    def on_step(self, report: StepReport) -> None:
        self.reports.append(report)
        if report.step == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)


def nothing(*_: object) -> None:
    """A hook that does nothing."""


def trainer(
    out: Path, settings: TrainSettings = SETTINGS, mesh: Mesh = ALONE, killed_at: int = 0
) -> tuple[Trainer, Recorder]:
    recorder = Recorder(killed_at)
    hooks = Hooks(recorder.on_step, nothing, nothing, lambda: False)
    network = make_network(settings, out, mesh)
    return Trainer(network, settings, out, mesh, hooks), recorder


def train(
    out: Path, settings: TrainSettings = SETTINGS, mesh: Mesh = ALONE, killed_at: int = 0
) -> list[StepReport]:
    """The reports of a run, from where it goes on."""
    made, recorder = trainer(out, settings, mesh, killed_at)
    made.run(draw_all, float("inf"))
    return recorder.reports


def train_on_ranks(
    cp: ContextParallel, out: Path, settings: TrainSettings, killed_at: int = 0
) -> list[StepReport]:
    """The same, for `tests.support.distributed.run`."""
    mesh = Mesh.of(cp, settings.context_parallel, CPU)
    return train(out, settings, mesh, killed_at)


def network(out: Path, settings: TrainSettings = SETTINGS, mesh: Mesh = ALONE) -> Network:
    return make_network(settings, out, mesh)
