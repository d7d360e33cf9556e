"""Random numbers of the diffusion sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.geometry import Coords, quaternion_to_matrix

STREAM_STRIDE = 0x9E3779B9  # the golden ratio of 2^32


class StepNoise(NamedTuple):
    """The random numbers of one step for M samples of each of B complexes, of unit scale."""

    rotation: Float[Tensor, "S 3 3"]
    translation: Float[Tensor, "S 1 3"]
    noise: Coords  # of the atoms of all complexes


@runtime_checkable
class NoiseSource(Protocol):
    """The random numbers of M samples, of unit scale: whole, hence the same on every rank."""

    def initial(self) -> Coords:
        """The noise from which the first step starts."""
        ...

    def step(self, index: int) -> StepNoise:
        """The random numbers of a step. Steps must be asked for in order."""
        ...


class SeededNoise:
    """Random numbers that depend on (seed, sample, atoms) alone.

    Each sample has its own generator on the CPU, so neither the device nor the number of ranks or
    of samples drawn together matters. Each particle of a sample has one too: the first draws what
    the sample would draw alone. So has the resampling of particles.
    """

    def __init__(
        self,
        seed: int,
        samples: range,
        num_atoms: int,
        device: torch.device,
        num_particles: int = 1,
    ) -> None:
        self.num_atoms = num_atoms
        self.device = device
        self.generators = [
            _generator(seed, sample, particle)
            for sample in samples
            for particle in range(num_particles)
        ]
        self.resampling_generators = [_generator(seed, sample, num_particles) for sample in samples]

    def initial(self) -> Coords:
        return self._to_device(self._normal(self.num_atoms, 3))

    def step(self, index: int) -> StepNoise:
        rotation = quaternion_to_matrix(self._normal(4))
        translation = self._normal(1, 3)
        noise = self._normal(self.num_atoms, 3)
        return StepNoise(
            self._to_device(rotation),
            self._to_device(translation),
            self._to_device(noise),
        )

    def resample(self, index: int, weights: Float[Tensor, "B K"], count: int) -> Int[Tensor, "B n"]:
        """`count` of the K particles of each of B samples, with replacement.

        A particle is as likely as its weight, which need not be normalized. Steps must be asked for
        in order.
        """
        cumulative = weights.double().cpu().cumsum(1)
        uniform = torch.stack(
            [
                torch.rand(count, generator=generator, dtype=torch.float64)
                for generator in self.resampling_generators
            ]
        )
        chosen = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        last = weights.shape[1] - 1
        return chosen.clamp(max=last).to(self.device)

    def _normal(self, *shape: int) -> Tensor:
        # Each in its place: stacking them would wait for threads of other programs on a busy CPU.
        pinned = self.device.type == "cuda"  # else the copy would wait for the GPU
        drawn = torch.empty((len(self.generators), *shape), pin_memory=pinned)
        for own, generator in zip(drawn, self.generators, strict=True):
            torch.randn(shape, generator=generator, out=own)
        return drawn

    def _to_device(self, drawn: Tensor) -> Tensor:
        return to_device(drawn, self.device)


class PackedNoise:
    """The random numbers of B complexes, each as it would have them alone, and zeros at the atoms
    that packing adds to make `atoms_each` of each.
    """

    def __init__(
        self,
        seed: int,
        samples: range,
        num_atoms: Sequence[int],
        atoms_each: int,
        device: torch.device,
    ) -> None:
        cpu = torch.device("cpu")
        self.sources = [SeededNoise(seed, samples, count, cpu) for count in num_atoms]
        self.atoms_each = atoms_each
        self.device = device

    def initial(self) -> Coords:
        return self._packed([source.initial() for source in self.sources])

    def step(self, index: int) -> StepNoise:
        steps = [source.step(index) for source in self.sources]
        rotation = torch.stack([step.rotation for step in steps], 1)
        translation = torch.stack([step.translation for step in steps], 1)
        return StepNoise(
            to_device(rotation.flatten(0, 1), self.device),
            to_device(translation.flatten(0, 1), self.device),
            self._packed([step.noise for step in steps]),
        )

    def _packed(self, noises: list[Float[Tensor, "M _ 3"]]) -> Coords:
        whole = torch.zeros(len(noises[0]), len(noises), self.atoms_each, 3)
        for index, noise in enumerate(noises):
            whole[:, index, : noise.shape[1]] = noise
        return to_device(whole.flatten(1, 2), self.device)


def to_device(drawn: Tensor, device: torch.device) -> Tensor:
    """A copy of a tensor in host memory, for which the CPU does not wait."""
    if device.type == "cuda":
        drawn = drawn.pin_memory()  # nothing, where it is pinned
    return drawn.to(device, non_blocking=True)


def _generator(seed: int, sample: int, stream: int) -> torch.Generator:
    """The generator of one stream (a particle, or the resampling) of a sample.

    A generator on the CPU reads 32 bits of its seed; multiples of the golden ratio of 2^32 keep the
    streams apart.
    """
    return torch.Generator().manual_seed(seed * 1_000_003 + sample + stream * STREAM_STRIDE)
