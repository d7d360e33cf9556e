"""Steering: potentials guide the sampler's steps and choose among particles (Boltz 2.2.1's
`--use_potentials`).

Feynman-Kac steering draws each sample as several particles. Every few steps they are drawn again,
with replacement, in favour of those whose energy fell (Singhal et al. 2025, arXiv:2501.06848).
Guidance moves each denoised structure down the gradient of the energy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.features.steering import VDW_RADII, Constraints, Molecules
from foldcp.model.diffusion.sampler import Step
from foldcp.model.steering.overlaps import VDWOverlapPotential
from foldcp.model.steering.potentials import (
    ContactPotential,
    FlatBottomPotential,
    Potential,
    SymmetricChainCOMPotential,
    TemplateReferencePotential,
    Time,
    absolute_dihedrals,
    dihedrals,
    distances,
)

NUM_PARTICLES = 3
RESAMPLING_INTERVAL = 3  # steps
ENERGY_SCALE = 4.0  # how much a fall of the energy by 1 adds to the log-weight of a particle
GUIDANCE_STEPS = 20  # down the gradient, in each step of the sampler

BOND_LENGTH = 2.0  # Å, the most of a bond between chains
# share of the sum of two van der Waals radii by which atoms of different chains may overlap
OVERLAP = 0.225
# least angle (30°) by which a chiral centre stands out, and the most by which a double bond is
# twisted
CHIRAL_BUFFER = 0.52360
PLANAR_BUFFER = 0.26180  # most angle (15°) by which an atom leaves the plane of a double bond

Schedule = Callable[[Time], float]


def constant(value: float) -> Schedule:
    """The same at all times."""
    return lambda time: value


def stepwise(limits: tuple[float, ...], values: tuple[float, ...]) -> Schedule:
    """values[k], k being the number of limits that the time exceeds."""
    return lambda time: values[sum(time > limit for limit in limits)]


def exponential(start: float, end: float, rate: float) -> Schedule:
    """From `start` at time 0 to `end` at time 1."""
    return lambda time: start + (end - start) * math.expm1(rate * time) / math.expm1(rate)


@dataclass(frozen=True, eq=False)
class Weighted:
    """A potential, and what it counts."""

    potential: Potential
    guidance: Schedule  # weight in the guidance
    interval: int  # steps of the guidance from one use to the next
    resampling: Schedule  # weight in the energy of a particle


def listed_potentials(features: Features, constraints: Constraints) -> list[Weighted]:
    """The potentials that have a term in this complex, weighted as in Boltz. Both are on the
    sampler's device.
    """
    listed = []
    if constraints.molecules is not None:
        listed += _physical(features, constraints.molecules)
    if constraints.contact_pairs.shape[1]:
        unions = ContactPotential(
            constraints.contact_pairs,
            constraints.contact_group,
            constraints.contact_threshold,
            exponential(8.0, 0.0, -2.0),
            int(constraints.contact_group[-1]) + 1,
        )
        listed.append(Weighted(unions, stepwise((0.25, 0.75), (0.0, 0.5, 1.0)), 4, constant(1.0)))
    f = features
    forced = features.template_force & (features.template_mask_cb > 0).any(1)
    if forced.any():
        position = f.template_cb[forced]
        mask = f.template_mask_cb[forced]
        templates = TemplateReferencePotential(
            position, mask, f.template_force_threshold[forced], f.rep_atom, f.atom_token
        )
        listed.append(Weighted(templates, constant(0.1), 2, constant(1.0)))
    return listed


def _physical(features: Features, m: Molecules) -> list[Weighted]:
    """What chemistry and the excluded volume ask for."""
    element = features.ref_element
    chain = features.asym_id[features.atom_token]
    atoms = torch.bincount(chain, features.atom_mask).long()
    listed = []

    # Ions and other chains of one atom neither repel nor overlap.
    entity = torch.zeros_like(atoms)
    entity[chain] = features.entity_id[features.atom_token]
    bulky = atoms > 1
    copies = ((entity[:, None] == entity) & bulky[:, None] & bulky).triu(1).nonzero().T
    if copies.shape[1]:
        apart = SymmetricChainCOMPotential(
            copies, atoms, chain, features.atom_mask, exponential(1.0, 5.0, -2.0)
        )
        listed.append(Weighted(apart, constant(0.5), 4, constant(0.5)))

    strangers = (
        ~torch.eye(len(atoms), dtype=torch.bool, device=chain.device) & bulky[:, None] & bulky
    )
    strangers[chain[m.connected[0]], chain[m.connected[1]]] = False
    strangers[chain[m.connected[1]], chain[m.connected[0]]] = False
    present = ((features.atom_mask > 0) & strangers.any(1)[chain]).nonzero()[:, 0]
    if len(present):
        radius = VDW_RADII.to(chain.device)[element[present]]
        overlaps = VDWOverlapPotential(present, radius, chain[present], strangers, 1 - OVERLAP)
        late = stepwise((0.4,), (0.125, 0.0)), 5, stepwise((0.6,), (0.01, 0.0))
        listed.append(Weighted(overlaps, *late))

    r = m.chiral_r
    e = m.stereo_e
    planes = torch.cat([m.planar[[1, 2, 3, 0]], m.planar[[4, 5, 0, 3]]], 1)
    for variable, terms, lower, upper, guidance, resampling in (
        (distances, m.connected, -math.inf, BOND_LENGTH, 0.15, 1.0),
        (distances, m.bounded, m.lower, m.upper, 0.01, 0.1),
        (
            dihedrals,
            m.chiral,
            torch.where(r, CHIRAL_BUFFER, -math.inf),
            torch.where(r, math.inf, -CHIRAL_BUFFER),
            0.1,
            1.0,
        ),
        (
            absolute_dihedrals,
            m.stereo,
            torch.where(e, math.pi - CHIRAL_BUFFER, -math.inf),
            torch.where(e, math.inf, CHIRAL_BUFFER),
            0.05,
            1.0,
        ),
        (absolute_dihedrals, planes, -math.inf, PLANAR_BUFFER, 0.05, 1.0),
    ):
        if num := terms.shape[1]:
            bounds = (torch.as_tensor(b, device=terms.device).expand(num) for b in (lower, upper))
            listed.append(
                Weighted(
                    FlatBottomPotential(variable, terms, *bounds),
                    constant(guidance),
                    1,
                    constant(resampling),
                )
            )
    return listed


# (step, log-free weights of the particles of each of B samples, how many to draw) -> their places
# among the particles
Choose = Callable[[int, Float[Tensor, "B K"], int], Int[Tensor, "B n"]]


class Steering:
    """One sampling of M structures: B samples, each of K particles that stand side by side; without
    particles K is 1.

    Its state lives from step to step, so every sampling needs a new one.
    """

    def __init__(
        self,
        potentials: list[Weighted],
        num_particles: int,
        num_steps: int,
        choose: Choose,
        cp: ContextParallel,
    ) -> None:
        self.potentials = potentials
        self.num_particles = num_particles
        self.num_steps = num_steps
        self.choose = choose
        self.cp = cp
        self.energy: Float[Tensor, " M"] | float = 0.0  # at the last choice
        self.shift: Float[Tensor, "M A 3"] | None = (
            None  # Å, how far the last guidance moved the structures
        )

    def __call__(
        self, step: Step, x: Float[Tensor, "M A 3"], denoised: Float[Tensor, "M A 3"]
    ) -> tuple[Float[Tensor, "n A 3"], Float[Tensor, "n A 3"]]:
        """Noisy and denoised structures, guided and chosen anew; after the last step one of each
        sample is left.
        """
        last = step.index == self.num_steps - 1
        time = 1 - step.index / self.num_steps
        noisy = step.index % RESAMPLING_INTERVAL == 0 and step.variance > 0
        weights = (
            self._weights(step, denoised, time)
            if self.num_particles > 1 and (noisy or last)
            else None
        )
        if not last:
            guidance = self._guidance(denoised, time)
            denoised = denoised + guidance
            self.shift = step.pull * guidance
        if weights is None:
            return x, denoised
        chosen = self._chosen(step.index, weights, 1 if last else self.num_particles)
        self.energy = self.energy[chosen]  # type: ignore[index]
        self.shift = self.shift[chosen] if self.shift is not None else None
        return x[chosen], denoised[chosen]

    def _weights(
        self, step: Step, denoised: Float[Tensor, "M A 3"], time: Time
    ) -> Float[Tensor, "B K"]:
        """How likely each particle of a sample is to be drawn."""
        energy = denoised.new_zeros(len(denoised))
        for weighted in self.potentials:
            if weight := weighted.resampling(time):
                energy = energy + weight * weighted.potential.energy(denoised, time)
        log_weight = ENERGY_SCALE * (self.energy - energy)
        self.energy = energy
        if self.shift is not None and step.variance > 0:
            # log-likelihood of this step's noise less that of the noise which would have led here
            # without guidance
            shift = self.shift @ step.rotation
            log_weight = log_weight - ((2 * step.noise + shift) * shift).sum((1, 2)) / (
                2 * step.variance
            )
        return log_weight.unflatten(0, (-1, self.num_particles)).softmax(1)

    def _guidance(self, denoised: Float[Tensor, "M A 3"], time: Time) -> Float[Tensor, "M A 3"]:
        """Å, the same on every rank to the last bit: where a bound is met, rounding decides
        about a whole step.
        """
        guidance = torch.zeros_like(denoised)
        active = [(p, weight) for p in self.potentials if (weight := p.guidance(time))]
        if not active:
            return guidance
        for index in range(GUIDANCE_STEPS):
            x = denoised + guidance
            for weighted, weight in active:
                if index % weighted.interval == 0:
                    guidance = guidance - weight * weighted.potential.gradient(x, time)
        return _agreed(guidance, self.cp)

    def _chosen(self, index: int, weights: Float[Tensor, "B K"], count: int) -> Int[Tensor, " n"]:
        """Places among all M; every rank takes the first rank's choice."""
        places = self.choose(index, weights, count)
        first = self.num_particles * torch.arange(len(places), device=places.device)
        return _agreed((first[:, None] + places).flatten(), self.cp)


def _agreed(x: Tensor, cp: ContextParallel) -> Tensor:
    """The first rank's tensor, on every rank."""
    return cp.all_reduce(x if cp.rank == 0 else torch.zeros_like(x))
