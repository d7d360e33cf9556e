"""What steering must know of a complex beyond the network's features: all O(N), and alike on
every rank.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.chemistry.ligand_geometry import NOTHING, Geometry, ccd_geometry, smiles_geometry
from foldcp.complex import Complex
from foldcp.features.pairs import covalent_bonds, named_tokens
from foldcp.features.tokens import Tables, tables

# Van der Waals radii (Å) by atomic number: those that Boltz takes, from RDKit's table of elements
# (Blue Obelisk Data Repository). 0 is an unknown element, elements without a value count 2.
RADII = torch.tensor(
    [
        0, 1.2, 1.4,
        2.2, 1.9, 1.8, 1.7, 1.6, 1.55, 1.5, 1.54,
        2.4, 2.2, 2.1, 2.1, 1.95, 1.8, 1.8, 1.88,
        2.8, 2.4, 2.3, 2.15, 2.05, 2.05, 2.05, 2.05, 2, 2, 2, 2.1, 2.1, 2.1, 2.05, 1.9, 1.9, 2.02,
        2.9, 2.55, 2.4, 2.3, 2.15, 2.1, 2.05, 2.05, 2, 2.05, 2.1, 2.2, 2.2, 2.25, 2.2, 2.1, 2.1, 2.16,
        3, 2.7, 2.5, 2.48, 2.47, 2.45, 2.43, 2.42, 2.4, 2.38, 2.37, 2.35, 2.33, 2.32, 2.3, 2.28,
        2.27, 2.25, 2.2, 2.1, 2.05, 2, 2, 2.05, 2.1, 2.05, 2.2, 2.3, 2.3, 2, 2, 2,
        2, 2, 2, 2.4, 2, 2.3, *26 * [2],
    ]
)  # fmt: skip

# RDKit's bounds may be left by these shares. Besides, a bond is shorter, and every other pair of
# atoms further apart, than the mean of the two radii and a margin (Å).
BOND_SLACK = ANGLE_SLACK = 0.125
CLASH_SLACK = 0.1
BOND_MARGIN = 0.35


@dataclass(frozen=True)
class _Movable:
    """Tensors that go to a device together."""

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(
            self,
            **{name: value.to(device) for name, value in values.items() if value is not None},
        )


@dataclass(frozen=True)
class Molecules(_Movable):
    """Chemistry: bonds between chains, and the geometry of all but standard residues. Index
    fields hold atoms.
    """

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
class Constraints(_Movable):
    """What potentials hold a structure to: forced pockets and contacts, and, on request, the
    molecules' chemistry.
    """

    contact_pairs: Int[Tensor, "2 U"]  # atoms
    contact_group: Int[Tensor, " U"]  # from 0; in each group some pair shall be close
    contact_threshold: Float[Tensor, " U"]  # Å
    molecules: Molecules | None


UNCONSTRAINED = Constraints(
    torch.zeros((2, 0), dtype=torch.int64),
    torch.zeros(0, dtype=torch.int64),
    torch.zeros(0),
    None,
)


def constraints(complex: Complex, *, potentials: bool) -> Constraints:
    """The forced contacts of a complex and, if `potentials`, its chemistry.

    Equal to what `boltz predict` 2.2.1 computes. Raises ValueError naming the complex and the value
    at fault: a constraint on an atom that does not exist, a ligand that RDKit cannot read, RDKit
    missing.
    """
    parts = tables(complex)
    return Constraints(
        **_contacts(complex, parts),
        molecules=_molecules(complex, parts) if potentials else None,
    )


def _contacts(complex: Complex, parts: Tables) -> dict[str, Tensor]:
    """A pocket wants each of its tokens close to the binder, a contact its two tokens: any atom
    to any atom.
    """
    edges = np.append(parts.tokens.first_atom, len(parts.atoms.token))
    groups: list[tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"], float]] = []

    def atoms(token: int) -> Int[np.ndarray, " b"]:
        return np.arange(edges[token], edges[token + 1])

    for pocket in complex.pockets:
        if pocket.force:
            tokens = sorted(
                {t for contact in pocket.contacts for t in named_tokens(complex, parts, contact)}
            )
            if pocket.binder not in parts.chains.name:
                raise ValueError(
                    f"complex {complex.name}: the binder {pocket.binder!r} of a pocket "
                    "does not exist"
                )
            chain = parts.chains.name.index(pocket.binder)
            binder = np.flatnonzero(parts.token_chain[parts.atoms.token] == chain)
            groups += [(binder, atoms(token), pocket.max_distance) for token in tokens]
    for contact in complex.contacts:
        if contact.force:
            i, j = (
                named_tokens(complex, parts, token)[0] for token in (contact.token1, contact.token2)
            )
            groups.append((atoms(i), atoms(j), contact.max_distance))
    pairs = [np.stack([np.repeat(a, len(b)), np.tile(b, len(a))]) for a, b, _ in groups]
    sizes = torch.tensor([pair.shape[1] for pair in pairs], dtype=torch.int64)
    return {
        "contact_pairs": torch.from_numpy(
            np.concatenate([np.zeros((2, 0), dtype=np.int64), *pairs], 1)
        ),
        "contact_group": torch.arange(len(groups)).repeat_interleave(sizes),
        "contact_threshold": torch.tensor(
            [d for _, _, d in groups], dtype=torch.float32
        ).repeat_interleave(sizes),
    }


def _molecules(complex: Complex, parts: Tables) -> Molecules:
    bonds = covalent_bonds(complex, parts)[:, :2].T
    chain = parts.token_chain[parts.atoms.token]
    found = [(0, NOTHING), *_geometries(complex, parts)]

    def atoms(name: str) -> Tensor:
        return torch.from_numpy(
            np.concatenate([getattr(geometry, name) + first for first, geometry in found], 1)
        )

    def values(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(geometry, name) for _, geometry in found]))

    pairs = atoms("pairs")
    bounds = [values(name) for name in ("lower", "upper", "bond", "angle")]
    lower, upper = _slackened(
        *bounds, radius=RADII[torch.from_numpy(parts.atoms.element)[pairs]].mean(0)
    )
    return Molecules(
        connected=torch.from_numpy(bonds[:, chain[bonds[0]] != chain[bonds[1]]]),
        bounded=pairs,
        lower=lower,
        upper=upper,
        chiral=atoms("chiral"),
        chiral_r=values("chiral_r"),
        stereo=atoms("stereo"),
        stereo_e=values("stereo_e"),
        planar=atoms("planar"),
    )


def _geometries(complex: Complex, parts: Tables) -> list[tuple[int, Geometry]]:
    """(first atom, geometry) of every residue that is no standard one."""
    found = []
    for index, component in enumerate(parts.residues.component):
        if component.standard:
            continue
        chain = complex.chains[parts.residues.chain[index]]
        geometry = (
            smiles_geometry(chain.smiles)
            if chain.smiles
            else ccd_geometry(component.code, component.atom_names)
        )
        found.append((int(parts.residues.first_atom[index]), geometry))
    return found


def _slackened(
    lower: Float[Tensor, " D"],
    upper: Float[Tensor, " D"],
    bond: Bool[Tensor, " D"],
    angle: Bool[Tensor, " D"],
    radius: Float[Tensor, " D"],
) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
    """RDKit's bounds as PoseBusters judges them; `radius` is the mean of the two atoms."""
    slack = torch.full_like(lower, CLASH_SLACK)
    slack[angle] = ANGLE_SLACK
    slack[bond] = BOND_SLACK
    slack[bond & angle] = min(BOND_SLACK, ANGLE_SLACK)
    lower = lower * (1 - slack)
    upper = upper * (1 + slack)
    upper = torch.where(bond | angle, upper, torch.inf)
    margin = radius + BOND_MARGIN
    return torch.where(bond, lower, lower.maximum(margin)), torch.where(
        bond, upper.minimum(margin), upper
    )
