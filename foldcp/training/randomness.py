"""Random numbers of a training step: recycling, dropout, rows of the MSA, noise."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.geometry import Coords, quaternion_to_matrix
from foldcp.model.diffusion.noise import NoiseSource, SeededNoise


class DiffusionNoise(NamedTuple):
    """The random numbers of M noisy structures, of unit scale."""

    level: Float[Tensor, " M"]  # standard normal; see `noise_levels`
    rotation: Float[Tensor, "M 3 3"]
    translation: Float[Tensor, "M 1 3"]  # Å
    noise: Coords


@runtime_checkable
class Randomness(Protocol):
    """The random numbers of a step: whole, and the same on every rank and at every P."""

    def recycling(self, most: int) -> int:
        """A number of passes after the first, from 0 to `most`."""
        ...

    def kept(self, share: float, *shape: int) -> Tensor:
        """1 with probability `share`, else 0."""
        ...

    def msa_rows(self, num_rows: int, count: int) -> list[int]:
        """`count` of the rows of an MSA, in any order."""
        ...

    def diffusion(self, num_samples: int, num_atoms: int) -> DiffusionNoise:
        """The noise of the structures that the diffusion loss denoises."""
        ...

    def sampler(self, num_samples: int, num_atoms: int) -> NoiseSource:
        """The noise of the sampler, for the structures whose confidence is trained."""
        ...


class GeneratedRandomness:
    """Random numbers of a generator on the CPU, which is in the same state on every rank."""

    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        self.generator = generator
        self.device = device

    def recycling(self, most: int) -> int:
        return int(torch.randint(most + 1, (), generator=self.generator))

    def kept(self, share: float, *shape: int) -> Tensor:
        return (torch.rand(shape, generator=self.generator) < share).float().to(self.device)

    def msa_rows(self, num_rows: int, count: int) -> list[int]:
        return torch.randperm(num_rows, generator=self.generator)[:count].tolist()

    def diffusion(self, num_samples: int, num_atoms: int) -> DiffusionNoise:
        return DiffusionNoise(
            level=self._normal(num_samples),
            rotation=quaternion_to_matrix(self._normal(num_samples, 4)),
            translation=self._normal(num_samples, 1, 3),
            noise=self._normal(num_samples, num_atoms, 3),
        )

    def sampler(self, num_samples: int, num_atoms: int) -> NoiseSource:
        seed = int(torch.randint(1 << 31, (), generator=self.generator))
        return SeededNoise(seed, range(num_samples), num_atoms, self.device)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.device)
