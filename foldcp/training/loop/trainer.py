"""The training loop: examples, gradients, updates, checkpoints."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from foldcp.distributed.mesh import Mesh
from foldcp.model.boltz2 import Boltz2
from foldcp.training.example import TrainingExample
from foldcp.training.loop.checkpoints import CheckpointWriter
from foldcp.training.loop.graphed_step import GraphedStep
from foldcp.training.loop.lightning_layout import TrainingState, to_checkpoint
from foldcp.training.loop.network import Network
from foldcp.training.loop.optimizer import learning_rate
from foldcp.training.loop.settings import TrainSettings, checkpoint_folder
from foldcp.training.step import Losses, training_step

MAX_SKIPPED = 10  # steps in a row without a finite gradient

EndReason = Literal["steps", "time", "signal"]


# Seeds -> the examples of these seeds, in their order; each a function of its seed alone.
DrawAll = Callable[[Iterable[int]], Iterator[TrainingExample]]


@dataclass(frozen=True)
class StepReport:
    """What a step did; means over its examples."""

    step: int  # from 1
    loss: float
    parts: Mapping[str, float]
    gradient_norm: float  # before clipping
    learning_rate: float
    num_tokens: int
    seconds: float
    peak_bytes: int  # of the first rank's device memory; 0 on a CPU
    skipped: bool  # a number was not finite, and the weights did not change


@dataclass(frozen=True)
class _Prepared:
    """An example whose gradients can be added."""

    name: str
    num_tokens: int
    add_gradients: Callable[[], Losses]


@dataclass(frozen=True)
class Hooks:
    """What a loop tells its caller, and asks it."""

    on_step: Callable[[StepReport], None]  # on the first rank
    # after every `validation.every` steps, with the averaged weights, on all ranks
    validate: Callable[[Boltz2, int], None]
    on_checkpoint: Callable[[int], None]  # on the first rank, as one begins to be written
    signalled: Callable[[], bool]  # whether this process was asked to end


@dataclass(frozen=True)
class Ending:
    """How a loop ended, after so many steps in all."""

    num_steps: int
    reason: EndReason


def seed_of(kind: str, seed: int, index: int) -> int:
    """A seed for the example of a number, of the run's seed; `kind` tells uses of it apart."""
    digest = hashlib.blake2b(f"{kind} {seed} {index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Trainer:
    """The loop on one rank; all ranks call the same methods in the same order.

    Example i of step s is a function of the seed and the number s E + i alone, E being
    `examples_per_step`, and so are the random numbers of its losses. So the state of the sampler is
    the number of steps, and the number of ranks changes losses by rounding only.
    """

    def __init__(
        self, network: Network, settings: TrainSettings, out: Path, mesh: Mesh, hooks: Hooks
    ) -> None:
        if settings.examples_per_step % mesh.data_size:
            raise ValueError(
                f"examples_per_step: {settings.examples_per_step} examples do not divide among "
                f"{mesh.data_size} context groups"
            )
        self.network = network
        self.settings = settings
        self.mesh = mesh
        self.hooks = hooks
        self.num_steps = network.num_steps
        self.num_skipped = network.num_skipped
        self.skipped_in_a_row = 0
        self.last_checkpoint = network.num_steps if network.num_steps else -1
        self.upcoming: _Prepared | None = None
        self.graphed_step = None
        if settings.cuda_graphs:
            self.graphed_step = GraphedStep(network.model, settings.step, mesh.device)
        self.writer = None
        if mesh.rank == 0:
            self.writer = CheckpointWriter(checkpoint_folder(out), settings.checkpoint.keep)

    def run(self, draw_all: DrawAll, max_seconds: float) -> Ending:
        """Train until the last step, for so many seconds, or until a signal; then write a
        checkpoint. Collective.

        Raises ValueError when too many steps in a row had numbers that are not finite, naming the
        examples, and when a checkpoint cannot be written.
        """
        deadline = time.monotonic() + max_seconds
        examples = self._prepared(draw_all(self._example_seeds()))
        reason: EndReason = "steps"
        while self.num_steps < self.settings.max_steps:
            signalled = self.hooks.signalled()
            stops = torch.tensor(
                [float(signalled), float(time.monotonic() > deadline)], device=self.mesh.device
            )
            asked, late = self.mesh.sum_(stops).tolist()
            if asked or late:
                reason = "signal" if asked else "time"
                break
            self._step(examples)
            self._after_step()
        self.save()
        if self.writer is not None:
            self.writer.wait()
        return Ending(self.num_steps, reason)

    def _example_numbers(self) -> Iterator[int]:
        """The numbers of this context group's examples, from the next step to the last."""
        per_step = self.settings.examples_per_step
        for step in range(self.num_steps, self.settings.max_steps):
            yield from range(
                step * per_step + self.mesh.data_rank, (step + 1) * per_step, self.mesh.data_size
            )

    def _example_seeds(self) -> Iterator[int]:
        seed = self.settings.seed
        return (seed_of("example", seed, number) for number in self._example_numbers())

    def _prepared(self, drawn: Iterator[TrainingExample]) -> Iterator[_Prepared]:
        """This context group's examples with the random numbers of their losses."""
        graphed = self.graphed_step
        step = partial(training_step, self.network.model, settings=self.settings.step, reduce=False)
        for number, example in zip(self._example_numbers(), drawn, strict=False):
            generator = torch.Generator().manual_seed(seed_of("step", self.settings.seed, number))
            centered = example.centered()
            if graphed is not None:
                add_gradients = partial(graphed, graphed.prepare(centered, generator))
            else:
                add_gradients = partial(step, centered, generator=generator)
            yield _Prepared(example.name, example.features.num_tokens, add_gradients)

    def _step(self, examples: Iterator[_Prepared]) -> None:
        """One update of the weights."""
        started = time.perf_counter()
        flat = self.network.flat
        optimizer = self.network.optimizer
        num_examples = self.settings.examples_per_step
        flat.clear_gradients()
        sums = torch.zeros(0)
        names: list[str] = []
        losses: list[tuple[str, Tensor]] = []
        num_tokens = 0
        for number in range(num_examples // self.mesh.data_size):
            example = self.upcoming or next(examples)
            num_tokens += example.num_tokens
            names, values = self._add_gradients(example)
            sums = values if number == 0 else sums + values
            losses.append((example.name, values[0]))
            self.upcoming = next(examples, None)  # is made while the device computes
        norm = optimizer.reduce(num_examples)
        counted = torch.cat([sums, sums.new_tensor([float(num_tokens)])])
        loss, *parts, num_tokens = (self.mesh.sum_(counted) / self.mesh.cp.size).tolist()
        finite = norm < float("inf")  # which NaN is not either
        if finite:
            optimizer.step(norm, self.num_steps)
            self.skipped_in_a_row = 0
        else:
            self._skip([name for name, loss in losses if not torch.isfinite(loss)])
        report = StepReport(
            step=self.num_steps + 1,
            loss=loss / num_examples,
            parts={name: part / num_examples for name, part in zip(names, parts, strict=True)},
            gradient_norm=norm,
            learning_rate=learning_rate(self.settings.optimizer, self.num_steps),
            num_tokens=round(num_tokens),
            seconds=time.perf_counter() - started,
            peak_bytes=_peak_bytes(self.mesh.device),
            skipped=not finite,
        )
        self.num_steps += 1
        if self.mesh.rank == 0:
            self.hooks.on_step(report)

    def _add_gradients(self, example: _Prepared) -> tuple[list[str], Tensor]:
        """Add the gradients of an example; the names of its losses, and their sum and values."""
        losses = example.add_gradients()
        self.network.flat.collect_gradients()
        values = torch.stack([losses.loss, *losses.parts.values()]).float()
        return list(losses.parts), values

    def _skip(self, bad: list[str]) -> None:
        """Count a step without finite gradients; ValueError when there were too many in a row."""
        self.num_skipped += 1
        self.skipped_in_a_row += 1
        everyone = self.mesh.gather_objects(bad)
        if self.skipped_in_a_row >= MAX_SKIPPED:
            found = ", ".join(sorted({name for names in everyone for name in names}))
            raise ValueError(
                f"the loss or its gradient was not finite in {MAX_SKIPPED} steps in a row, up to "
                f"step {self.num_steps + 1}; its examples: {found or 'all losses were finite'}"
            )

    def _after_step(self) -> None:
        validation = self.settings.validation
        if validation.every and self.num_steps % validation.every == 0:
            with self.averaged_weights():
                self.hooks.validate(self.network.model, self.num_steps)
        if self.num_steps % self.settings.checkpoint.every == 0:
            self.save()

    def averaged_weights(self) -> AveragedWeights:
        """A context in which the network has the averaged weights. Collective."""
        return AveragedWeights(self.network)

    def save(self) -> None:
        """Begin to write a checkpoint, unless there is one of this step. Collective."""
        if self.num_steps == self.last_checkpoint:
            return
        state = self._state()
        self.last_checkpoint = self.num_steps
        if self.writer is not None:
            self.hooks.on_checkpoint(self.num_steps)
            self.writer.write(self.num_steps, to_checkpoint(state, self.settings))

    @torch.no_grad()
    def _state(self) -> TrainingState:
        """The state in host memory, on the first rank. Collective."""
        network = self.network
        optimizer = network.optimizer
        shares = (optimizer.average, optimizer.mean, optimizer.square)
        average, mean, square = (network.flat.by_name(optimizer.whole(x).cpu()) for x in shares)
        weights = {
            name: weight.detach().to("cpu", torch.float32, copy=True)
            for name, weight in network.model.state_dict().items()
            if name not in network.flat.parameters
        }
        trained = network.flat.by_name(network.flat.weights.to("cpu", copy=True))
        weights |= trained
        # A layer may have two names, of which the vector has the first.
        names = {id(p): name for name, p in network.flat.parameters.items()}
        for name, p in network.model.named_parameters(remove_duplicate=False):
            if id(p) in names:
                weights[name] = trained[names[id(p)]]
                average[name] = average[names[id(p)]]
        return TrainingState(
            architecture=network.model.architecture,
            weights=weights,
            average=average,
            mean=mean,
            square=square,
            groups=[list(group) for group in network.groups],
            num_steps=self.num_steps,
            num_skipped=self.num_skipped,
            examples_per_step=self.settings.examples_per_step,
            seed=self.settings.seed,
        )


class AveragedWeights:
    """A context in which a network has the averaged weights, in evaluation mode. Collective."""

    def __init__(self, network: Network) -> None:
        self.network = network

    @torch.no_grad()
    def __enter__(self) -> None:
        flat = self.network.flat
        self.kept = flat.weights.clone()
        optimizer = self.network.optimizer
        optimizer.mesh.share(flat.weights).copy_(optimizer.average)
        optimizer.mesh.gather_shares_(flat.weights)
        flat.publish()
        self.network.model.eval()

    @torch.no_grad()
    def __exit__(self, *error: object) -> None:
        flat = self.network.flat
        flat.weights.copy_(self.kept)
        del self.kept
        flat.publish()
        self.network.model.train()


def _peak_bytes(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
