"""Training steps of small examples as CUDA graphs: their time else goes into launching kernels.

Examples are padded to a few sizes, and the gradients of each size captured once. Then a step is a
copy of an example to where the graph reads it, and one launch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foldcp.features.features import Features
from foldcp.model.boltz2 import Boltz2
from foldcp.model.diffusion.noise import NoiseSource
from foldcp.training.example import TrainingExample, Truth
from foldcp.training.randomness import DiffusionNoise, GeneratedRandomness
from foldcp.training.settings import TrainingSettings
from foldcp.training.step import Losses, training_losses

# Numbers of tokens and atoms are padded to multiples of these.
TOKEN_MULTIPLE = 64
ATOM_MULTIPLE = 256
NUM_WARMUPS = 2  # examples of a size that run without a graph first

ATOM_FIELDS = (
    "ref_pos",
    "ref_charge",
    "ref_element",
    "ref_atom_name_chars",
    "ref_space_uid",
    "atom_mask",
    "atom_token",
)


def check_can_capture(settings: TrainingSettings) -> None:
    """Raise ValueError naming what a graph cannot hold: numbers drawn on the way, and confidence,
    whose truth depends on the structure that is sampled.
    """
    wanted = {
        "step.weights.confidence": settings.weights.confidence,
        "step.pair_dropout": settings.pair_dropout,
        "step.msa_dropout": settings.msa_dropout,
        "step.msa_subsample": settings.msa_subsample,
    }
    for name, value in wanted.items():
        if value:
            raise ValueError(f"cuda_graphs: needs {name}=0, not {value}")


@dataclass(frozen=True)
class DrawnRandomness:
    """Random numbers of a structure step that were drawn before."""

    passes: int
    noise: DiffusionNoise

    def recycling(self, most: int) -> int:
        return self.passes

    def kept(self, share: float, *shape: int) -> Tensor:
        raise AssertionError("a graph has no dropout")

    def msa_rows(self, num_rows: int, count: int) -> list[int]:
        raise AssertionError("a graph draws no rows")

    def diffusion(self, num_samples: int, num_atoms: int) -> DiffusionNoise:
        return self.noise

    def sampler(self, num_samples: int, num_atoms: int) -> NoiseSource:
        raise AssertionError("a graph samples no structures")


@dataclass(frozen=True)
class StepInputs:
    """A padded example, and the random numbers of its step."""

    example: TrainingExample
    noise: DiffusionNoise
    passes: int

    def tensors(self) -> list[Tensor]:
        """What a graph reads, always in the same order."""
        return [*_tensors(self.example.features), *_tensors(self.example.truth), *self.noise]


@dataclass(eq=False)
class _Captured:
    """The inputs of one size, where they are read, and what a replay fills."""

    inputs: list[Tensor]
    run: Callable[[], Losses]  # without a graph
    num_calls: int = 0
    graph: Any = None
    losses: Losses | None = None


class GraphedStep:
    """`training_step` with `reduce=False` on one rank, whose parameters keep their gradients'
    memory.
    """

    def __init__(self, model: Boltz2, settings: TrainingSettings, device: torch.device) -> None:
        check_can_capture(settings)
        assert model.cp.size == 1, "exchanges between ranks are not captured"
        self.model = model
        self.settings = settings
        self.device = device
        self.sizes: dict[object, _Captured] = {}
        self.pool = None
        self.stream = None  # for the calls before a capture, too
        if device.type == "cuda":
            self.pool = torch.cuda.graph_pool_handle()
            self.stream = torch.cuda.Stream(device)
        # Chunks are those of the memory that is free now, as a graph's are never cut anew.
        model.budget.resize(device, model.cp)
        self.chunk_bytes = model.budget.max_bytes(device)

    def prepare(self, example: TrainingExample, generator: torch.Generator) -> StepInputs:
        """The inputs of a step, in host memory."""
        settings = self.settings
        drawn = GeneratedRandomness(generator, torch.device("cpu"))
        passes = settings.recycling
        if settings.random_recycling:
            passes = drawn.recycling(passes)
        noise = drawn.diffusion(settings.multiplicity, example.features.num_atoms)
        padded = padded_example(example)
        extra = padded.features.num_atoms - example.features.num_atoms
        noise = noise._replace(noise=F.pad(noise.noise, (0, 0, 0, extra)))
        return StepInputs(padded, noise, passes)

    def __call__(self, inputs: StepInputs) -> Losses:
        """Add the gradients of an example's loss to those of the parameters."""
        tensors = inputs.tensors()
        shapes = tuple((x.shape, x.dtype) for x in tensors)
        key = (shapes, inputs.example.features.contact_default, inputs.passes)
        if key not in self.sizes:
            self.sizes[key] = self._static(inputs)
        return self._run(self.sizes[key], tensors)

    def _static(self, inputs: StepInputs) -> _Captured:
        example = inputs.example.to(self.device)
        # `to` may return the same memory.
        features = _copied(example.features)
        truth = _copied(example.truth)
        noise = DiffusionNoise(*(x.to(self.device, copy=True) for x in inputs.noise))
        randomness = DrawnRandomness(inputs.passes, noise)
        static = replace(example, features=features, truth=truth)
        settings = replace(self.settings, random_recycling=True)  # asks for `passes`

        def run() -> Losses:
            own, losses = training_losses(self.model, static, settings, randomness)
            own.backward()
            return losses

        return _Captured(StepInputs(static, noise, inputs.passes).tensors(), run)

    def _run(self, captured: _Captured, inputs: list[Tensor]) -> Losses:
        for static, x in zip(captured.inputs, inputs, strict=True):
            static.copy_(x)
        captured.num_calls += 1
        budget = self.model.budget
        kept = budget.fixed_bytes
        budget.fixed_bytes = self.chunk_bytes
        try:
            if self.stream is None:
                return captured.run()
            if captured.num_calls <= NUM_WARMUPS:
                return self._warm_up(captured, self.stream)
            if captured.graph is None:
                self._capture(captured)
        finally:
            budget.fixed_bytes = kept
        assert captured.graph is not None
        captured.graph.replay()
        assert captured.losses is not None
        losses = captured.losses
        parts = {name: part.clone() for name, part in losses.parts.items()}
        return Losses(losses.loss.clone(), parts)

    def _warm_up(self, captured: _Captured, stream: torch.cuda.Stream) -> Losses:
        """A step in the stream of the capture, so that all it leaves behind belongs to it."""
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            losses = captured.run()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        return losses

    def _capture(self, captured: _Captured) -> None:
        """Capture a step; what it adds to the gradients is added when the graph is replayed."""
        captured.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            captured.graph, pool=self.pool, stream=self.stream, capture_error_mode="relaxed"
        ):
            captured.losses = captured.run()


def padded_example(example: TrainingExample) -> TrainingExample:
    """An example with tokens and atoms padded to multiples, and without what differs in size
    although a structure step does not read it.
    """
    features = example.features
    num_tokens = features.num_tokens + -features.num_tokens % TOKEN_MULTIPLE
    extra = -features.num_atoms % ATOM_MULTIPLE
    atoms = {name: _pad_first(getattr(features, name), extra) for name in ATOM_FIELDS}
    # The layout says which windows of atoms there are: all that the padded example has.
    token_of_atom = features.layout.atom_token
    padding = features.num_atoms + extra - len(token_of_atom)
    layout = replace(
        features.layout,
        atom_token=np.pad(token_of_atom, (0, padding), constant_values=num_tokens - 1),
    )
    truth = example.truth
    truth = Truth(
        conformers=F.pad(truth.conformers, (0, 0, 0, extra)),
        resolved=_pad_first(truth.resolved, extra),
        bfactors=_pad_first(truth.bfactors, extra),
        lddt_atoms=truth.lddt_atoms[:0],
    )
    padded = replace(features, layout=layout, **atoms).pad_to(num_tokens)
    return TrainingExample(padded, truth, example.name)


def _pad_first(x: Tensor, extra: int) -> Tensor:
    return torch.cat([x, x.new_zeros((extra, *x.shape[1:]))])


def _tensors(x: Features | Truth) -> list[Tensor]:
    found = (getattr(x, each.name) for each in fields(x))
    return [value for value in found if isinstance(value, Tensor)]


def _copied(x: Any) -> Any:
    """A dataclass with contiguous tensors of its own."""
    copies = {
        each.name: value.contiguous().clone()
        for each in fields(x)
        if isinstance(value := getattr(x, each.name), Tensor)
    }
    return replace(x, **copies)
