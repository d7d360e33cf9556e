"""Noise schedule of the diffusion sampler, and the preconditioning of the network by noise level.

Sigmas are in Å. Source: Karras et al. 2022 (EDM), with AlphaFold 3's constants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.config import DiffusionProcess


class StepScalars(NamedTuple):
    """The numbers of a step that its computation reads, on the device."""

    noise_std: Float[Tensor, "1"]  # Å, standard deviation of the noise that the step adds
    step_scale: Float[Tensor, "1"]  # as of `NoiseLevel`
    input_scale: Float[Tensor, "1"]  # Å, by which the network's coordinates are divided
    time: Float[Tensor, "1"]  # the noise level as the network reads it; no unit
    skip_weight: Float[Tensor, "1"]  # of the noisy structure in the denoised one (EDM: c_skip)
    output_weight: Float[Tensor, "1"]  # Å, of the network's output in it (EDM: c_out)

    @classmethod
    def unpack(cls, values: Float[Tensor, " L"]) -> StepScalars:
        """The scalars in one tensor of all values, in the order of the fields."""
        return cls(*values.split(1))


@dataclass(frozen=True)
class NoiseLevel:
    """The noise of one step of the sampler, and the numbers that follow from it."""

    sigma: float  # Å, after the step's noise was added
    variance: float  # Å², of the step's noise
    step_scale: float  # how far to go from the noisy to the denoised structure: 1 is all the way
    sigma_data: float  # Å, spread of structures

    @property
    def noise_std(self) -> float:
        return math.sqrt(self.variance)

    @property
    def input_scale(self) -> float:
        return math.sqrt(self.sigma**2 + self.sigma_data**2)

    @property
    def time(self) -> float:
        return 0.25 * math.log(max(self.sigma / self.sigma_data, 1e-20))

    @property
    def skip_weight(self) -> float:
        return (self.sigma_data / self.input_scale) ** 2

    @property
    def output_weight(self) -> float:
        return self.sigma * self.sigma_data / self.input_scale

    def scalars(self) -> list[float]:
        """The values of `StepScalars`."""
        return [getattr(self, name) for name in StepScalars._fields]


def noise_schedule(process: DiffusionProcess, sigma_data: float, num_steps: int) -> list[float]:
    """`num_steps` + 1 falling noise levels in Å, the last 0 (Karras et al. 2022, equation 5)."""
    ramp = torch.arange(num_steps, dtype=torch.float32) / max(1, num_steps - 1)
    low = process.sigma_min ** (1 / process.rho)
    high = process.sigma_max ** (1 / process.rho)
    sigmas = (high + ramp * (low - high)) ** process.rho * sigma_data
    return [*sigmas.tolist(), 0.0]


def noise_levels(
    process: DiffusionProcess, sigma_data: float, sigmas: list[float]
) -> list[NoiseLevel]:
    """The noise level of every step of a schedule (AlphaFold 3, algorithm 18)."""
    levels = []
    for before, after in pairwise(sigmas):
        gamma = process.gamma_0 if after > process.gamma_min else 0.0
        sigma = before * (1 + gamma)
        variance = process.noise_scale**2 * (sigma**2 - before**2)
        step_scale = process.step_scale * (sigma - after) / sigma
        levels.append(NoiseLevel(sigma, variance, step_scale, sigma_data))
    return levels
