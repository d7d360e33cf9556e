"""Potentials: what a structure costs, and which way each atom should go. Terms are listed once per
complex.

Formulas and numbers are those of Boltz 2.2.1. All but the template's are flat-bottomed: a term
costs by how much its value lies outside its bounds, so its slope is -1, 0 or 1. A direction is the
gradient of the energy unless its docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.model.diffusion.sampler import align

# The sampler's time: 1 in the first step, 1 / steps in the last.
Time = float


@runtime_checkable
class Potential(Protocol):
    """Energies of M structures (Å), and what is subtracted from the coordinates to lower them."""

    def energy(self, x: Float[Tensor, "M A 3"], time: Time) -> Float[Tensor, " M"]: ...

    def gradient(self, x: Float[Tensor, "M A 3"], time: Time) -> Float[Tensor, "M A 3"]: ...


def flat_bottom(
    value: Float[Tensor, "M *K"],
    lower: Float[Tensor, "*#K"],
    upper: Float[Tensor, "*#K"],
) -> tuple[Float[Tensor, "M *K"], Float[Tensor, "M *K"]]:
    """Energy and slope; where the bounds contradict each other the upper one holds."""
    above = value > upper
    energy = torch.where(above, value - upper, (lower - value).clamp(min=0))
    return energy, above.to(value) - (~above & (value < lower)).to(value)


def unit(vector: Float[Tensor, "*K 3"], length: Float[Tensor, "*K"]) -> Float[Tensor, "*K 3"]:
    """The direction of a vector; none at length 0."""
    return vector / length.clamp(min=torch.finfo(length.dtype).tiny)[..., None]


# What a term bounds: values, and their gradients with respect to each of the term's n atoms.
Variable = Callable[
    [Float[Tensor, "M A 3"], Int[Tensor, "n K"]],
    tuple[Float[Tensor, "M K"], Float[Tensor, "M n K 3"]],
]


def distances(
    x: Float[Tensor, "M A 3"], pairs: Int[Tensor, "2 K"]
) -> tuple[Float[Tensor, "M K"], Float[Tensor, "M 2 K 3"]]:
    """Distances in Å."""
    between = x[:, pairs[0]] - x[:, pairs[1]]
    length = between.norm(dim=-1)
    direction = unit(between, length)
    return length, torch.stack([direction, -direction], 1)


def dihedrals(
    x: Float[Tensor, "M A 3"], atoms: Int[Tensor, "4 K"]
) -> tuple[Float[Tensor, "M K"], Float[Tensor, "M 4 K 3"]]:
    """Angles in -pi .. pi between the planes of i, j, k and of j, k, l.

    Gradients after Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996).
    """
    i, j, k, l = (x[:, index] for index in atoms)
    ij = i - j
    kj = k - j
    kl = k - l
    m = torch.linalg.cross(ij, kj)
    n = torch.linalg.cross(kj, kl)
    axis = kj.norm(dim=-1)
    angle = torch.atan2(axis * (ij * n).sum(-1), (m * n).sum(-1))

    def along(vector: Tensor) -> Tensor:
        return ((vector * kj).sum(-1) / axis**2)[..., None]

    of_i = m * (axis / m.square().sum(-1))[..., None]
    of_l = -n * (axis / n.square().sum(-1))[..., None]
    of_j = (along(ij) - 1) * of_i - along(kl) * of_l
    of_k = (along(kl) - 1) * of_l - along(ij) * of_i
    return angle, torch.stack([of_i, of_j, of_k, of_l], 1)


def absolute_dihedrals(
    x: Float[Tensor, "M A 3"], atoms: Int[Tensor, "4 K"]
) -> tuple[Float[Tensor, "M K"], Float[Tensor, "M 4 K 3"]]:
    """0 where i and l lie on the same side, pi where on opposite ones."""
    angle, gradient = dihedrals(x, atoms)
    return angle.abs(), torch.where(angle < 0, -1.0, 1.0)[:, None, :, None] * gradient


def spread(
    x: Float[Tensor, "M A 3"],
    atoms: Int[Tensor, "n K"],
    forces: Float[Tensor, "M n K 3"],
) -> Float[Tensor, "M A 3"]:
    """The sum of the forces on each atom."""
    return torch.zeros_like(x).index_add_(1, atoms.flatten(), forces.flatten(1, 2))


@dataclass(frozen=True, eq=False)
class FlatBottomPotential:
    """K terms of n atoms each, whose values shall stay within bounds."""

    variable: Variable
    atoms: Int[Tensor, "n K"]
    lower: Float[Tensor, " K"]
    upper: Float[Tensor, " K"]

    def energy(self, x: Float[Tensor, "M A 3"], time: Time) -> Float[Tensor, " M"]:
        value, _ = self.variable(x, self.atoms)
        return flat_bottom(value, self.lower, self.upper)[0].sum(-1)

    def gradient(self, x: Float[Tensor, "M A 3"], time: Time) -> Float[Tensor, "M A 3"]:
        value, direction = self.variable(x, self.atoms)
        slope = flat_bottom(value, self.lower, self.upper)[1]
        return spread(x, self.atoms, slope[:, None, :, None] * direction)


@dataclass(frozen=True, eq=False)
class SymmetricChainCOMPotential:
    """Copies of a molecule, whose centres shall not coincide.

    A centre is the sum over a chain's n atoms by n + 1, as in Boltz. A chain moves as a whole: each
    of its atoms feels the gradient with respect to the centre.
    """

    pairs: Int[Tensor, "2 K"]  # chains
    num_atoms: Int[Tensor, " C"]
    chain: Int[Tensor, " A"]  # padding moves with the first chain, as in Boltz
    atom_mask: Float[Tensor, " A"]
    distance: Callable[[Time], float]  # Å

    def _bounded(self, time: Time) -> FlatBottomPotential:
        lower = self.atom_mask.new_full((self.pairs.shape[1],), self.distance(time))
        return FlatBottomPotential(distances, self.pairs, lower, torch.full_like(lower, torch.inf))

    def _centres(self, x: Float[Tensor, "M A 3"]) -> Float[Tensor, "M C 3"]:
        total = x.new_zeros((len(x), len(self.num_atoms), 3)).index_add_(
            1, self.chain, x * self.atom_mask[:, None]
        )
        return total / (self.num_atoms + 1)[:, None]

    def energy(self, x: Float[Tensor, "M A 3"], time: Time) -> Float[Tensor, " M"]:
        return self._bounded(time).energy(self._centres(x), time)

    def gradient(self, x: Float[Tensor, "M A 3"], time: Time) -> Float[Tensor, "M A 3"]:
        return self._bounded(time).gradient(self._centres(x), time)[:, self.chain]


@dataclass(frozen=True, eq=False)
class ContactPotential:
    """Groups of pairs of atoms, of each of which some pair shall be close.

    The energy of a group is the mean of its pairs' energies, weighted by exp(-sharpness * energy).
    Two ways of Boltz are kept: the derivative of the weights enters the direction with the opposite
    sign, and a group whose weights all underflow (far apart, late in the sampling) costs nothing.
    """

    pairs: Int[Tensor, "2 K"]
    group: Int[Tensor, " K"]
    upper: Float[Tensor, " K"]  # Å
    sharpness: Callable[[Time], float]  # 1/Å
    num_groups: int

    def _sum(self, values: Float[Tensor, "M K"]) -> Float[Tensor, "M G"]:
        return values.new_zeros((len(values), self.num_groups)).index_add_(1, self.group, values)

    def _weights(self, energy: Float[Tensor, "M K"], time: Time) -> Float[Tensor, "M K"]:
        weight = torch.exp(-self.sharpness(time) * energy)
        total = self._sum(weight)[:, self.group]
        return torch.where(total == 0, 0, weight / total)

    def energy(self, x: Float[Tensor, "M A 3"], time: Time) -> Float[Tensor, " M"]:
        value, _ = distances(x, self.pairs)
        energy, _ = flat_bottom(value, torch.full_like(self.upper, -torch.inf), self.upper)
        return (energy * self._weights(energy, time)).sum(-1)

    def gradient(self, x: Float[Tensor, "M A 3"], time: Time) -> Float[Tensor, "M A 3"]:
        value, direction = distances(x, self.pairs)
        energy, slope = flat_bottom(value, torch.full_like(self.upper, -torch.inf), self.upper)
        weight = self._weights(energy, time)
        mean = self._sum(energy * weight)[:, self.group]
        slope = slope * weight * (1 + self.sharpness(time) * (energy - mean))
        return spread(x, self.pairs, slope[:, None, :, None] * direction)


@dataclass(frozen=True, eq=False)
class TemplateReferencePotential:
    """Representative atoms, which shall stay close to those of F templates, each laid onto the
    structure.

    All atoms of a token go where its representative atom should; that the template moves along is
    left out. As in Boltz, the direction is that towards the first of several forced templates.
    """

    position: Float[Tensor, "F N 3"]  # Å
    mask: Float[Tensor, "F N"]
    threshold: Float[Tensor, " F"]  # Å
    rep_atom: Int[Tensor, " N"]
    atom_token: Int[Tensor, " A"]  # padding moves with the first token, as in Boltz

    def _offsets(self, x: Float[Tensor, "M A 3"]) -> Float[Tensor, "M F N 3"]:
        ours = x[:, self.rep_atom]
        laid = [
            align(p.expand_as(ours), ours, mask)
            for p, mask in zip(self.position, self.mask, strict=True)
        ]
        return ours[:, None] - torch.stack(laid, 1)

    def _flat_bottom(
        self, length: Float[Tensor, "M F N"]
    ) -> tuple[Float[Tensor, "M F N"], Float[Tensor, "M F N"]]:
        upper = torch.where(self.mask > 0, self.threshold[:, None], torch.inf)
        return flat_bottom(length, torch.full_like(upper, -torch.inf), upper)

    def energy(self, x: Float[Tensor, "M A 3"], time: Time) -> Float[Tensor, " M"]:
        return self._flat_bottom(self._offsets(x).norm(dim=-1))[0].sum((1, 2))

    def gradient(self, x: Float[Tensor, "M A 3"], time: Time) -> Float[Tensor, "M A 3"]:
        offset = self._offsets(x)
        length = offset.norm(dim=-1)
        slope = self._flat_bottom(length)[1].sum(1) * self.mask[0]
        return (slope[..., None] * unit(offset[:, 0], length[:, 0]))[:, self.atom_token]
