"""Potentials: energies of structures and their gradients, with the terms listed once per complex.

Formulas are those of Boltz 2.2.1. All but the template's are flat-bottomed: the energy of a term is
by how much its value lies outside its bounds, so its slope is -1, 0 or 1. `gradient` is the
gradient of the energy unless the docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.geometry import Coords, superpose
from foldcp.model.steering.schedules import Schedule, Time

Energies = Float[Tensor, " M"]  # of M structures


@runtime_checkable
class Potential(Protocol):
    """Energies of M structures (Å), and what is subtracted from the coordinates to lower them."""

    def energy(self, x: Coords, time: Time) -> Energies: ...

    def gradient(self, x: Coords, time: Time) -> Coords: ...


def flat_bottom(
    value: Float[Tensor, "M *K"],
    lower: Float[Tensor, "*#K"],
    upper: Float[Tensor, "*#K"],
) -> tuple[Float[Tensor, "M *K"], Float[Tensor, "M *K"]]:
    """Energy and slope; where the bounds contradict each other the upper one holds."""
    above = value > upper
    below = ~above & (value < lower)
    energy = torch.where(above, value - upper, (lower - value).clamp(min=0))
    return energy, above.to(value) - below.to(value)


def direction_of(
    vector: Float[Tensor, "*K 3"], length: Float[Tensor, "*K"]
) -> Float[Tensor, "*K 3"]:
    """The unit vector along a vector of this length; zero at length 0."""
    tiny = torch.finfo(length.dtype).tiny
    return vector / length.clamp(min=tiny)[..., None]


# The variables that terms bound: (coordinates, the n atoms of each term) -> values, and their
# gradients with respect to each of the n atoms.
Variable = Callable[
    [Coords, Int[Tensor, "n K"]],
    tuple[Float[Tensor, "M K"], Float[Tensor, "M n K 3"]],
]


def distances(
    x: Coords, pairs: Int[Tensor, "2 K"]
) -> tuple[Float[Tensor, "M K"], Float[Tensor, "M 2 K 3"]]:
    """Distances in Å."""
    between = x[:, pairs[0]] - x[:, pairs[1]]
    length = between.norm(dim=-1)
    direction = direction_of(between, length)
    return length, torch.stack([direction, -direction], 1)


def dihedrals(
    x: Coords, atoms: Int[Tensor, "4 K"]
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
    sine = axis * (ij * n).sum(-1)
    cosine = (m * n).sum(-1)
    angle = torch.atan2(sine, cosine)

    def along(vector: Tensor) -> Tensor:
        return ((vector * kj).sum(-1) / axis**2)[..., None]

    grad_i = m * (axis / m.square().sum(-1))[..., None]
    grad_l = -n * (axis / n.square().sum(-1))[..., None]
    grad_j = (along(ij) - 1) * grad_i - along(kl) * grad_l
    grad_k = (along(kl) - 1) * grad_l - along(ij) * grad_i
    return angle, torch.stack([grad_i, grad_j, grad_k, grad_l], 1)


def absolute_dihedrals(
    x: Coords, atoms: Int[Tensor, "4 K"]
) -> tuple[Float[Tensor, "M K"], Float[Tensor, "M 4 K 3"]]:
    """0 where i and l lie on the same side, pi where on opposite ones."""
    angle, gradient = dihedrals(x, atoms)
    sign = torch.where(angle < 0, -1.0, 1.0)
    return angle.abs(), sign[:, None, :, None] * gradient


def scatter_forces(
    x: Coords,
    atoms: Int[Tensor, "n K"],
    forces: Float[Tensor, "M n K 3"],
) -> Coords:
    """The sum of the forces on each atom."""
    total = torch.zeros_like(x)
    return total.index_add_(1, atoms.flatten(), forces.flatten(1, 2))


@dataclass(frozen=True, eq=False)
class FlatBottomPotential:
    """K terms of n atoms each, whose values stay within bounds."""

    variable: Variable
    atoms: Int[Tensor, "n K"]
    lower: Float[Tensor, " K"]
    upper: Float[Tensor, " K"]

    def energy(self, x: Coords, time: Time) -> Energies:
        value, _ = self.variable(x, self.atoms)
        energy, _ = flat_bottom(value, self.lower, self.upper)
        return energy.sum(-1)

    def gradient(self, x: Coords, time: Time) -> Coords:
        value, direction = self.variable(x, self.atoms)
        _, slope = flat_bottom(value, self.lower, self.upper)
        return scatter_forces(x, self.atoms, slope[:, None, :, None] * direction)


@dataclass(frozen=True, eq=False)
class SymmetricChainCOMPotential:
    """Pairs of copies of a molecule, whose centers keep a distance.

    A center is the sum over a chain's n atoms by n + 1, as in Boltz. A chain moves as a whole: each
    of its atoms gets the gradient with respect to the center.
    """

    pairs: Int[Tensor, "2 K"]  # chains
    num_atoms: Int[Tensor, " C"]
    chain: Int[Tensor, " A"]  # padding moves with the first chain, as in Boltz
    atom_mask: Float[Tensor, " A"]
    distance: Schedule  # Å, the least

    def energy(self, x: Coords, time: Time) -> Energies:
        return self._of_centers(time).energy(self._centers(x), time)

    def gradient(self, x: Coords, time: Time) -> Coords:
        gradient = self._of_centers(time).gradient(self._centers(x), time)
        return gradient[:, self.chain]

    def _of_centers(self, time: Time) -> FlatBottomPotential:
        """The potential whose atoms are the centers."""
        num_pairs = self.pairs.shape[1]
        lower = self.atom_mask.new_full((num_pairs,), self.distance(time))
        no_upper = torch.full_like(lower, torch.inf)
        return FlatBottomPotential(distances, self.pairs, lower, no_upper)

    def _centers(self, x: Coords) -> Float[Tensor, "M C 3"]:
        total = x.new_zeros((len(x), len(self.num_atoms), 3))
        total.index_add_(1, self.chain, x * self.atom_mask[:, None])
        return total / (self.num_atoms + 1)[:, None]


@dataclass(frozen=True, eq=False)
class ContactPotential:
    """Groups (unions) of pairs of atoms, in each of which at least one pair must be close.

    The energy of a group is the mean of its pairs' energies, weighted by exp(-union_lambda *
    energy). Two faults of Boltz are kept: the derivative of the weights enters the gradient with
    the opposite sign, and a group whose weights all underflow (far apart, late in the sampling) has
    no energy.
    """

    pairs: Int[Tensor, "2 K"]
    group: Int[Tensor, " K"]
    upper: Float[Tensor, " K"]  # Å
    union_lambda: Schedule  # 1/Å
    num_groups: int

    def energy(self, x: Coords, time: Time) -> Energies:
        value, _ = distances(x, self.pairs)
        energy, _ = self._flat_bottom(value)
        return (energy * self._weights(energy, time)).sum(-1)

    def gradient(self, x: Coords, time: Time) -> Coords:
        value, direction = distances(x, self.pairs)
        energy, slope = self._flat_bottom(value)
        weight = self._weights(energy, time)
        mean = self._sum(energy * weight)[:, self.group]
        slope = slope * weight * (1 + self.union_lambda(time) * (energy - mean))
        return scatter_forces(x, self.pairs, slope[:, None, :, None] * direction)

    def _flat_bottom(
        self, value: Float[Tensor, "M K"]
    ) -> tuple[Float[Tensor, "M K"], Float[Tensor, "M K"]]:
        no_lower = torch.full_like(self.upper, -torch.inf)
        return flat_bottom(value, no_lower, self.upper)

    def _sum(self, values: Float[Tensor, "M K"]) -> Float[Tensor, "M G"]:
        """The sum over each group."""
        total = values.new_zeros((len(values), self.num_groups))
        return total.index_add_(1, self.group, values)

    def _weights(self, energy: Float[Tensor, "M K"], time: Time) -> Float[Tensor, "M K"]:
        weight = torch.exp(-self.union_lambda(time) * energy)
        total = self._sum(weight)[:, self.group]
        return torch.where(total == 0, 0, weight / total)


@dataclass(frozen=True, eq=False)
class TemplateReferencePotential:
    """Representative atoms, which stay close to those of F templates, each superposed onto the
    structure.

    All atoms of a token go where its representative atom should; that the template moves along is
    left out of the gradient. As in Boltz, the gradient is towards the first of several forced
    templates.
    """

    position: Float[Tensor, "F N 3"]  # Å
    mask: Float[Tensor, "F N"]
    threshold: Float[Tensor, " F"]  # Å
    rep_atom: Int[Tensor, " N"]
    atom_token: Int[Tensor, " A"]  # padding moves with the first token, as in Boltz

    def energy(self, x: Coords, time: Time) -> Energies:
        energy, _ = self._flat_bottom(self._offsets(x).norm(dim=-1))
        return energy.sum((1, 2))

    def gradient(self, x: Coords, time: Time) -> Coords:
        offset = self._offsets(x)
        length = offset.norm(dim=-1)
        _, slopes = self._flat_bottom(length)
        slope = slopes.sum(1) * self.mask[0]
        direction = direction_of(offset[:, 0], length[:, 0])
        force = slope[..., None] * direction
        return force[:, self.atom_token]

    def _offsets(self, x: Coords) -> Float[Tensor, "M F N 3"]:
        """Vectors from the superposed templates to the structures."""
        ours = x[:, self.rep_atom]
        superposed = [
            superpose(position.expand_as(ours), ours, mask)
            for position, mask in zip(self.position, self.mask, strict=True)
        ]
        return ours[:, None] - torch.stack(superposed, 1)

    def _flat_bottom(
        self, length: Float[Tensor, "M F N"]
    ) -> tuple[Float[Tensor, "M F N"], Float[Tensor, "M F N"]]:
        upper = torch.where(self.mask > 0, self.threshold[:, None], torch.inf)
        return flat_bottom(length, torch.full_like(upper, -torch.inf), upper)
