"""The potentials of a complex, with the weights that Boltz 2.2.1 gives them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.features.features import Features
from foldcp.features.steering import VDW_RADII, Constraints, Molecules
from foldcp.model.steering.potentials import (
    ContactPotential,
    FlatBottomPotential,
    Potential,
    SymmetricChainCOMPotential,
    TemplateReferencePotential,
    Variable,
    absolute_dihedrals,
    dihedrals,
    distances,
)
from foldcp.model.steering.schedules import (
    Constant,
    ExponentialInterpolation,
    PiecewiseStepFunction,
    Schedule,
)
from foldcp.model.steering.vdw_overlap import VDWOverlapPotential

CONNECTION_BUFFER = 2.0  # Å, longest bond between chains
# Share of the sum of two van der Waals radii by which atoms of different chains may overlap.
VDW_BUFFER = 0.225
CHIRAL_BUFFER = 0.52360  # smallest angle (30°) by which a chiral center is out of plane
STEREO_BUFFER = 0.52360  # largest angle (30°) by which a double bond is twisted
PLANAR_BUFFER = 0.26180  # largest angle (15°) by which an atom leaves the plane of a double bond


@dataclass(frozen=True, eq=False)
class WeightedPotential:
    """A potential, and what it counts."""

    potential: Potential
    guidance_weight: Schedule
    guidance_interval: int  # steps of gradient descent from one use to the next
    resampling_weight: Schedule  # in the energy of a particle


def weighted_potentials(features: Features, constraints: Constraints) -> list[WeightedPotential]:
    """The potentials that have a term in this complex, on the device of its tensors."""
    potentials = []
    if constraints.molecules is not None:
        chains = _Chains.of(features)
        potentials += _symmetric_chains(features, chains)
        potentials += _vdw_overlap(features, chains, constraints.molecules)
        potentials += _chemistry(constraints.molecules)
    potentials += _contacts(constraints)
    potentials += _templates(features)
    return potentials


@dataclass(frozen=True)
class _Chains:
    """The chains of a complex, padding among those of the first."""

    of_atom: Int[Tensor, " A"]
    entity: Int[Tensor, " C"]
    num_atoms: Int[Tensor, " C"]

    @classmethod
    def of(cls, features: Features) -> _Chains:
        of_atom = features.asym_id[features.atom_token]
        num_atoms = torch.bincount(of_atom, features.atom_mask).long()
        entity = torch.zeros_like(num_atoms)
        entity[of_atom] = features.entity_id[features.atom_token]
        return cls(of_atom, entity, num_atoms)

    @property
    def pairs(self) -> Bool[Tensor, "C C"]:
        """Pairs of chains that may repel each other: ions and other chains of one atom do not."""
        several_atoms = self.num_atoms > 1
        return several_atoms[:, None] & several_atoms


def _symmetric_chains(features: Features, chains: _Chains) -> list[WeightedPotential]:
    """Copies of a molecule do not coincide."""
    same_entity = chains.entity[:, None] == chains.entity
    pairs = (same_entity & chains.pairs).triu(1).nonzero().T
    if not pairs.shape[1]:
        return []
    potential = SymmetricChainCOMPotential(
        pairs=pairs,
        num_atoms=chains.num_atoms,
        chain=chains.of_atom,
        atom_mask=features.atom_mask,
        distance=ExponentialInterpolation(1.0, 5.0, -2.0),
    )
    return [
        WeightedPotential(
            potential,
            guidance_weight=Constant(0.5),
            guidance_interval=4,
            resampling_weight=Constant(0.5),
        )
    ]


def _vdw_overlap(
    features: Features, chains: _Chains, molecules: Molecules
) -> list[WeightedPotential]:
    """Atoms of chains that no bond joins do not overlap."""
    first, second = chains.of_atom[molecules.connected]
    num_chains = len(chains.num_atoms)
    same_chain = torch.eye(num_chains, dtype=torch.bool, device=first.device)
    nonbonded_chains = ~same_chain & chains.pairs
    nonbonded_chains[first, second] = False
    nonbonded_chains[second, first] = False
    has_nonbonded = nonbonded_chains.any(1)[chains.of_atom]
    atoms = ((features.atom_mask > 0) & has_nonbonded).nonzero()[:, 0]
    if not len(atoms):
        return []
    potential = VDWOverlapPotential(
        atoms=atoms,
        radius=VDW_RADII.to(atoms.device)[features.ref_element[atoms]],
        chain=chains.of_atom[atoms],
        nonbonded_chains=nonbonded_chains,
        buffer=VDW_BUFFER,
    )
    return [
        WeightedPotential(
            potential,
            guidance_weight=PiecewiseStepFunction((0.4,), (0.125, 0.0)),
            guidance_interval=5,
            resampling_weight=PiecewiseStepFunction((0.6,), (0.01, 0.0)),
        )
    ]


def _chemistry(molecules: Molecules) -> list[WeightedPotential]:
    """Bonds between chains, and the geometry of all but standard residues."""
    m = molecules
    first_plane = m.planar[[1, 2, 3, 0]]
    second_plane = m.planar[[4, 5, 0, 3]]
    planes = torch.cat([first_plane, second_plane], 1)
    chiral_lower = torch.where(m.chiral_r, CHIRAL_BUFFER, -math.inf)
    chiral_upper = torch.where(m.chiral_r, math.inf, -CHIRAL_BUFFER)
    stereo_lower = torch.where(m.stereo_e, math.pi - STEREO_BUFFER, -math.inf)
    stereo_upper = torch.where(m.stereo_e, math.inf, STEREO_BUFFER)
    return [
        *_bounded(distances, m.connected, -math.inf, CONNECTION_BUFFER, 0.15, 1.0),
        *_bounded(distances, m.bounded, m.lower, m.upper, 0.01, 0.1),
        *_bounded(dihedrals, m.chiral, chiral_lower, chiral_upper, 0.1, 1.0),
        *_bounded(absolute_dihedrals, m.stereo, stereo_lower, stereo_upper, 0.05, 1.0),
        *_bounded(absolute_dihedrals, planes, -math.inf, PLANAR_BUFFER, 0.05, 1.0),
    ]


def _bounded(
    variable: Variable,
    atoms: Int[Tensor, "n K"],
    lower: Float[Tensor, " K"] | float,
    upper: Float[Tensor, " K"] | float,
    guidance_weight: float,
    resampling_weight: float,
) -> list[WeightedPotential]:
    """A potential of these terms at every step, if there are any."""
    num_terms = atoms.shape[1]
    if not num_terms:
        return []
    lower_bounds = torch.as_tensor(lower, device=atoms.device).expand(num_terms)
    upper_bounds = torch.as_tensor(upper, device=atoms.device).expand(num_terms)
    return [
        WeightedPotential(
            FlatBottomPotential(variable, atoms, lower_bounds, upper_bounds),
            guidance_weight=Constant(guidance_weight),
            guidance_interval=1,
            resampling_weight=Constant(resampling_weight),
        )
    ]


def _contacts(constraints: Constraints) -> list[WeightedPotential]:
    """Forced pockets and contacts."""
    if not constraints.contact_pairs.shape[1]:
        return []
    potential = ContactPotential(
        pairs=constraints.contact_pairs,
        group=constraints.contact_group,
        upper=constraints.contact_threshold,
        union_lambda=ExponentialInterpolation(8.0, 0.0, -2.0),
        num_groups=int(constraints.contact_group[-1]) + 1,
    )
    return [
        WeightedPotential(
            potential,
            guidance_weight=PiecewiseStepFunction((0.25, 0.75), (0.0, 0.5, 1.0)),
            guidance_interval=4,
            resampling_weight=Constant(1.0),
        )
    ]


def _templates(features: Features) -> list[WeightedPotential]:
    """Forced templates."""
    f = features
    forced = f.template_force & (f.template_mask_cb > 0).any(1)
    if not len(forced) or not forced.any():  # the latter waits for the device
        return []
    potential = TemplateReferencePotential(
        position=f.template_cb[forced],
        mask=f.template_mask_cb[forced],
        threshold=f.template_force_threshold[forced],
        rep_atom=f.rep_atom,
        atom_token=f.atom_token,
    )
    return [
        WeightedPotential(
            potential,
            guidance_weight=Constant(0.1),
            guidance_interval=2,
            resampling_weight=Constant(1.0),
        )
    ]
