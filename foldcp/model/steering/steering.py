"""Steering: potentials guide the sampler's steps and resample particles (`boltz predict
--use_potentials`).

Feynman-Kac steering draws each sample as several particles. Every few steps they are resampled,
with replacement, in favour of those whose energy fell (Singhal et al. 2025, arXiv:2501.06848).
Guidance moves each denoised structure down the gradient of the energy. Constants are those of Boltz
2.2.1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.geometry import Coords
from foldcp.model.diffusion.sampler import Step
from foldcp.model.steering.potentials import Energies
from foldcp.model.steering.schedules import Time
from foldcp.model.steering.weighted_potentials import WeightedPotential

NUM_PARTICLES = 3
RESAMPLING_INTERVAL = 3  # steps
FK_LAMBDA = 4.0  # how much a fall of the energy by 1 adds to the log-weight of a particle
NUM_GUIDANCE_STEPS = 20  # of gradient descent, in each step of the sampler


# (index of the step, normalized weights of the K particles of each of B samples, how many to draw)
# -> their indices among the K
Resample = Callable[[int, Float[Tensor, "B K"], int], Int[Tensor, "B n"]]


class Steering:
    """Steering of M structures: B samples, each of K consecutive particles; K = 1 without
    resampling.

    It keeps state from step to step, so every run of the sampler needs a new one.
    """

    def __init__(
        self,
        potentials: list[WeightedPotential],
        num_particles: int,
        num_steps: int,
        resample: Resample,
        cp: ContextParallel,
    ) -> None:
        self.potentials = potentials
        self.num_particles = num_particles
        self.num_steps = num_steps
        self.resample = resample
        self.cp = cp
        self.energy: Energies | float = 0.0  # at the last resampling
        # Å, how far the last guidance moved the structures
        self.shift: Coords | None = None

    def __call__(
        self, step: Step, x: Coords, denoised: Coords
    ) -> tuple[Float[Tensor, "n A 3"], Float[Tensor, "n A 3"]]:
        """Noisy and denoised structures, guided and resampled.

        The last step leaves one structure of each sample.
        """
        last = step.index == self.num_steps - 1
        time = 1 - step.index / self.num_steps
        due = step.index % RESAMPLING_INTERVAL == 0 and step.variance > 0
        weights = None
        if self.num_particles > 1 and (due or last):
            weights = self._particle_weights(step, denoised, time)
        if not last:
            guidance = self._guidance(denoised, time)
            denoised = denoised + guidance
            self.shift = step.step_scale * guidance
        if weights is None:
            return x, denoised
        num_chosen = 1 if last else self.num_particles
        chosen = self._resampled(step.index, weights, num_chosen)
        self.energy = self.energy[chosen]  # type: ignore[index]
        if self.shift is not None:
            self.shift = self.shift[chosen]
        return x[chosen], denoised[chosen]

    def _particle_weights(self, step: Step, denoised: Coords, time: Time) -> Float[Tensor, "B K"]:
        """The probability with which each particle of a sample is drawn."""
        energy = denoised.new_zeros(len(denoised))
        for weighted in self.potentials:
            if weight := weighted.resampling_weight(time):
                energy = energy + weight * weighted.potential.energy(denoised, time)
        log_weight = FK_LAMBDA * (self.energy - energy)
        self.energy = energy
        if self.shift is not None and step.variance > 0:
            # Log-likelihood of this step's noise less that of the noise which would have led here
            # without guidance.
            shift = self.shift @ step.rotation
            squares = ((2 * step.noise + shift) * shift).sum((1, 2))
            log_weight = log_weight - squares / (2 * step.variance)
        return log_weight.unflatten(0, (-1, self.num_particles)).softmax(1)

    def _guidance(self, denoised: Coords, time: Time) -> Coords:
        """The move (Å) of every atom by gradient descent.

        The same on every rank to the last bit: where a bound is met, rounding decides about a whole
        step.
        """
        guidance = torch.zeros_like(denoised)
        active = [
            (weighted, weight)
            for weighted in self.potentials
            if (weight := weighted.guidance_weight(time))
        ]
        if not active:
            return guidance
        for index in range(NUM_GUIDANCE_STEPS):
            x = denoised + guidance
            for weighted, weight in active:
                if index % weighted.guidance_interval == 0:
                    guidance = guidance - weight * weighted.potential.gradient(x, time)
        return self.cp.broadcast(guidance)

    def _resampled(
        self, index: int, weights: Float[Tensor, "B K"], count: int
    ) -> Int[Tensor, " n"]:
        """Indices among all M structures; every rank takes the first rank's."""
        drawn = self.resample(index, weights, count)
        first = self.num_particles * torch.arange(len(drawn), device=drawn.device)
        return self.cp.broadcast((first[:, None] + drawn).flatten())
