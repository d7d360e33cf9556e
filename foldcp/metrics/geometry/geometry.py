"""Everything about a sample that its coordinates alone decide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.features.features import Features
from foldcp.kernels.exposed_surface import ExposedSurface
from foldcp.metrics.geometry.atoms import (
    MAX_CONTACT,
    MAX_NEIGHBOURS,
    StructureAtoms,
    near_pairs,
)
from foldcp.metrics.geometry.bonds import backbone_bonds, salt_bridges
from foldcp.metrics.geometry.clashes import Clashes, clashes
from foldcp.metrics.geometry.stereochemistry import (
    ChiralCenters,
    Stereochemistry,
    chiral_centers,
    stereochemistry,
)
from foldcp.metrics.geometry.surface import (
    accessible_spheres,
    atom_radii,
    fraction_disordered,
    surfaces,
)
from foldcp.metrics.geometry.token_contacts import (
    NITROGEN_OXYGEN,
    TokenContacts,
    are_polar,
    contact_elements,
    token_contacts,
)
from foldcp.metrics.geometry.weak_cache import weak_cache


@dataclass(frozen=True, eq=False)
class Geometry:
    """The geometry of one sample, in host memory: O(A) numbers and those of pairs of chains.

    `contacts` and the pairs of chains are None in a heap of atoms, in which all are neighbours of
    all and none lies open; everything is None where a coordinate is not finite.
    """

    contacts: TokenContacts | None
    clashes: Clashes | None
    buried: Float[np.ndarray, "C C"] | None  # Å², lost by atoms of a to b
    backbone_bonds: Float[np.ndarray, "C C"] | None
    salt_bridges: Float[np.ndarray, "C C"] | None
    fraction_disordered: float | None
    stereochemistry: Stereochemistry | None


REFERENCE = ExposedSurface()
UNKNOWN = Geometry(None, None, None, None, None, None, None)


def geometry(
    features: Features, coords: Float[Tensor, "A 3"], exposed: ExposedSurface = REFERENCE
) -> Geometry:
    """The geometry of a sample with these atoms in Å, padded. Waits for the device."""
    layout = features.layout
    num_atoms = len(layout.atom_token)
    positions = coords[:num_atoms].double().cpu().numpy()
    if not np.isfinite(positions).all():
        return UNKNOWN
    atoms = StructureAtoms(layout, positions)
    near = near_pairs(positions, MAX_CONTACT, MAX_NEIGHBOURS, coords.device)
    alone = np.zeros(num_atoms)  # in a heap
    contacts = buried = bonds = bridges = None
    if near is not None:
        spheres = accessible_spheres(atoms, atom_radii(layout), near)
        between = near.where(spheres.chain[near.first] != spheres.chain[near.second])
        found = surfaces(atoms, spheres, between, exposed)
        alone, buried = found.alone, found.buried
        # Nothing else that looks at pairs of chains sees farther.
        in_contact = between.where(between.distance <= NITROGEN_OXYGEN)
        elements = contact_elements(atoms, in_contact)
        contacts = token_contacts(atoms, in_contact, elements)
        polar = in_contact.where(are_polar(elements)).on_host()
        bonds = backbone_bonds(atoms, polar)
        bridges = salt_bridges(atoms, polar)
    return Geometry(
        contacts=contacts,
        clashes=clashes(atoms, near, coords.device),
        buried=buried,
        backbone_bonds=bonds,
        salt_bridges=bridges,
        fraction_disordered=fraction_disordered(atoms, alone),
        stereochemistry=stereochemistry(atoms, _chiral_centers(features)),
    )


@weak_cache
def _chiral_centers(features: Features) -> ChiralCenters:
    layout = features.layout
    return chiral_centers(
        layout,
        features.ref_pos[: len(layout.atom_token)].double().cpu().numpy(),
        features.bonds.to(torch.int64).cpu().numpy(),
    )
