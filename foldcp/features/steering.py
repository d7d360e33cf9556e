"""Constraints of steering potentials: forced contacts, and the geometry of molecules.

All are O(N) in size and the same on every rank.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.chemistry.ligand_geometry import (
    EMPTY,
    Geometry,
    ccd_geometry,
    smiles_geometry,
)
from foldcp.complex import Complex
from foldcp.features.pairs import covalent_bonds, resolve_all, resolve_tokens
from foldcp.features.tokens import TokenizedComplex, tokenize

# Van der Waals radii (Å) by atomic number: those that Boltz takes, from RDKit's table of elements
# (Blue Obelisk Data Repository). 0 is an unknown element, elements without a value count 2.
VDW_RADII = torch.tensor(
    [
        0, 1.2, 1.4,
        2.2, 1.9, 1.8, 1.7, 1.6, 1.55, 1.5, 1.54,
        2.4, 2.2, 2.1, 2.1, 1.95, 1.8, 1.8, 1.88,
        2.8, 2.4, 2.3, 2.15, 2.05, 2.05, 2.05, 2.05, 2, 2, 2, 2.1, 2.1, 2.1, 2.05, 1.9, 1.9, 2.02,
        2.9, 2.55, 2.4, 2.3, 2.15, 2.1, 2.05, 2.05, 2, 2.05, 2.1, 2.2, 2.2, 2.25, 2.2, 2.1, 2.1,
        2.16,
        3, 2.7, 2.5, 2.48, 2.47, 2.45, 2.43, 2.42, 2.4, 2.38, 2.37, 2.35, 2.33, 2.32, 2.3, 2.28,
        2.27, 2.25, 2.2, 2.1, 2.05, 2, 2, 2.05, 2.1, 2.05, 2.2, 2.3, 2.3, 2, 2, 2,
        2, 2, 2, 2.4, 2, 2.3, *26 * [2],
    ]
)  # fmt: skip

# Tolerances of RDKit's bounds, as shares. Besides, a bond is shorter, and every other pair of
# atoms further apart, than the mean of the two radii and a margin (Å).
BOND_SLACK = ANGLE_SLACK = 0.125
CLASH_SLACK = 0.1
BOND_MARGIN = 0.35


@dataclass(frozen=True)
class _OnDevice:
    """A group of tensors on one device."""

    def to(self, device: torch.device | str) -> Self:
        """A copy on a device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: value.to(device) for name, value in values.items() if value is not None}
        return replace(self, **moved)


@dataclass(frozen=True)
class Molecules(_OnDevice):
    """Bonds between chains, and the geometry of all but standard residues, as atom indices."""

    connected: Int[Tensor, "2 B"]
    bounded: Int[Tensor, "2 D"]
    lower: Float[Tensor, " D"]  # Å
    upper: Float[Tensor, " D"]  # Å
    chiral: Int[Tensor, "4 K"]
    chiral_r: Bool[Tensor, " K"]
    stereo: Int[Tensor, "4 S"]
    stereo_e: Bool[Tensor, " S"]
    planar: Int[Tensor, "6 L"]


@dataclass(frozen=True)
class Constraints(_OnDevice):
    """Forced pockets and contacts, and, on request, the geometry of molecules."""

    contact_pairs: Int[Tensor, "2 U"]  # atoms
    contact_group: Int[Tensor, " U"]  # from 0; in each group some pair shall be close
    contact_threshold: Float[Tensor, " U"]  # Å
    molecules: Molecules | None


NO_CONSTRAINTS = Constraints(
    contact_pairs=torch.zeros((2, 0), dtype=torch.int64),
    contact_group=torch.zeros(0, dtype=torch.int64),
    contact_threshold=torch.zeros(0),
    molecules=None,
)


def steering_constraints(complex: Complex, *, potentials: bool) -> Constraints:
    """The forced contacts of a complex and, if `potentials`, the geometry of its molecules.

    Equal to what `boltz predict` 2.2.1 computes. Raises ValueError naming the complex and the value
    at fault: a constraint on an atom that does not exist, a ligand that RDKit cannot read, RDKit
    missing.
    """
    tokenized = tokenize(complex)
    return Constraints(
        **_contacts(complex, tokenized),
        molecules=_molecules(complex, tokenized) if potentials else None,
    )


def _contacts(complex: Complex, tokenized: TokenizedComplex) -> dict[str, Tensor]:
    """The forced contacts, each a group of atom pairs at least one of which must be close.

    A pocket holds each of its tokens to the binder, a contact its two tokens to each other.
    """
    edges = np.append(tokenized.tokens.first_atom, len(tokenized.atoms.token))
    groups: list[tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"], float]] = []

    def atoms(token: int) -> Int[np.ndarray, " b"]:
        return np.arange(edges[token], edges[token + 1])

    for pocket in complex.pockets:
        if pocket.force:
            tokens = resolve_all(complex, tokenized, pocket.contacts)
            if pocket.binder not in tokenized.chains.name:
                raise ValueError(
                    f"complex {complex.name}: the binder {pocket.binder!r} of a pocket "
                    "does not exist"
                )
            chain = tokenized.chains.name.index(pocket.binder)
            binder = np.flatnonzero(tokenized.token_chain[tokenized.atoms.token] == chain)
            groups += [(binder, atoms(token), pocket.max_distance) for token in tokens]
    for contact in complex.contacts:
        if contact.force:
            i = resolve_tokens(complex, tokenized, contact.token1)[0]
            j = resolve_tokens(complex, tokenized, contact.token2)[0]
            groups.append((atoms(i), atoms(j), contact.max_distance))
    pairs = [_all_pairs(a, b) for a, b, _ in groups]
    no_pairs = np.zeros((2, 0), dtype=np.int64)
    all_pairs = np.concatenate([no_pairs, *pairs], 1)
    sizes = torch.tensor([pair.shape[1] for pair in pairs], dtype=torch.int64)
    thresholds = torch.tensor([distance for _, _, distance in groups], dtype=torch.float32)
    return {
        "contact_pairs": torch.from_numpy(all_pairs),
        "contact_group": torch.arange(len(groups)).repeat_interleave(sizes),
        "contact_threshold": thresholds.repeat_interleave(sizes),
    }


def _all_pairs(a: Int[np.ndarray, " a"], b: Int[np.ndarray, " b"]) -> Int[np.ndarray, "2 a*b"]:
    """Every index of a with every index of b."""
    return np.stack([np.repeat(a, len(b)), np.tile(b, len(a))])


def _molecules(complex: Complex, tokenized: TokenizedComplex) -> Molecules:
    bonds = covalent_bonds(complex, tokenized)[:, :2].T
    chain = tokenized.token_chain[tokenized.atoms.token]
    geometries = [(0, EMPTY), *_geometries(complex, tokenized)]
    pairs = _atom_indices(geometries, "pairs")
    bounds = [_values(geometries, name) for name in ("lower", "upper", "bond", "angle")]
    elements = torch.from_numpy(tokenized.atoms.element)
    lower, upper = _slackened(*bounds, radius=VDW_RADII[elements[pairs]].mean(0))
    return Molecules(
        connected=torch.from_numpy(bonds[:, chain[bonds[0]] != chain[bonds[1]]]),
        bounded=pairs,
        lower=lower,
        upper=upper,
        chiral=_atom_indices(geometries, "chiral"),
        chiral_r=_values(geometries, "chiral_r"),
        stereo=_atom_indices(geometries, "stereo"),
        stereo_e=_values(geometries, "stereo_e"),
        planar=_atom_indices(geometries, "planar"),
    )


def _atom_indices(geometries: list[tuple[int, Geometry]], name: str) -> Tensor:
    """A field of several geometries, whose atom indices each start at the first atom."""
    return torch.from_numpy(
        np.concatenate([getattr(geometry, name) + first for first, geometry in geometries], 1)
    )


def _values(geometries: list[tuple[int, Geometry]], name: str) -> Tensor:
    """A field of several geometries that holds a value for each of their terms."""
    return torch.from_numpy(np.concatenate([getattr(geometry, name) for _, geometry in geometries]))


def _geometries(complex: Complex, tokenized: TokenizedComplex) -> list[tuple[int, Geometry]]:
    """(first atom, geometry) of every residue that is not standard."""
    found = []
    for index, component in enumerate(tokenized.residues.component):
        if component.standard:
            continue
        chain = complex.chains[tokenized.residues.chain[index]]
        if chain.smiles:
            geometry = smiles_geometry(chain.smiles)
        else:
            geometry = ccd_geometry(component.code, component.atom_names)
        found.append((int(tokenized.residues.first_atom[index]), geometry))
    return found


def _slackened(
    lower: Float[Tensor, " D"],
    upper: Float[Tensor, " D"],
    bond: Bool[Tensor, " D"],
    angle: Bool[Tensor, " D"],
    radius: Float[Tensor, " D"],
) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
    """RDKit's bounds with the tolerances of PoseBusters; `radius` is the mean of the two atoms."""
    slack = torch.full_like(lower, CLASH_SLACK)
    slack[angle] = ANGLE_SLACK
    slack[bond] = BOND_SLACK
    slack[bond & angle] = min(BOND_SLACK, ANGLE_SLACK)
    lower = lower * (1 - slack)
    upper = upper * (1 + slack)
    upper = torch.where(bond | angle, upper, torch.inf)
    margin = radius + BOND_MARGIN
    lower = torch.where(bond, lower, lower.maximum(margin))
    upper = torch.where(bond, upper.minimum(margin), upper)
    return lower, upper
