"""Pairs of tokens of different chains with atoms near each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from foldcp.features.layout import Layout
from foldcp.metrics.geometry.atoms import AtomPairs, StructureAtoms

INTERFACE = 5.0  # Å between heavy atoms, strictly below; SPOC's contacts, too
AF2COMPLEX = 4.5  # Å, strictly below
# Å, at most: the rules of Interactome3D that are not part of others (Mosca 2013)
CARBON_CARBON = 5.0
NITROGEN_OXYGEN = 5.5
DISULFIDE = 2.56
CARBON, NITROGEN, OXYGEN, SULFUR = (6, 7, 8, 16)


@dataclass(frozen=True, eq=False)
class TokenContacts:
    """Pairs of tokens of different chains with atoms within 5.5 Å, both ways, in order."""

    first: Int[np.ndarray, " n"]
    second: Int[np.ndarray, " n"]
    distance: Float[np.ndarray, " n"]  # Å, of the nearest atoms
    interactome: Bool[np.ndarray, " n"]  # whether in contact by the rules of Interactome3D

    def touching(self, layout: Layout, cutoff: float) -> Bool[np.ndarray, "T C"]:
        """Whether each token has an atom nearer than the cutoff to an atom of each chain."""
        near = self.distance < cutoff
        mask = np.zeros((len(layout.token_chain), len(layout.chain_kinds)), dtype=bool)
        mask[self.first[near], layout.token_chain[self.second[near]]] = True
        return mask


def token_contacts(atoms: StructureAtoms, near: AtomPairs) -> TokenContacts:
    """The pairs of tokens, from those of the atoms of different chains."""
    near = near.where(near.distance <= NITROGEN_OXYGEN).both_ways()
    token = atoms.layout.atom_token
    num_tokens = len(atoms.layout.token_chain)
    keys, place = np.unique(
        token[near.first] * num_tokens + token[near.second], return_inverse=True
    )
    distance = np.full(len(keys), np.inf)
    np.minimum.at(distance, place, near.distance)
    interactome = np.zeros(len(keys), dtype=bool)
    interactome[place[_interactome(atoms, near)]] = True
    return TokenContacts(keys // num_tokens, keys % num_tokens, distance, interactome)


def _interactome(atoms: StructureAtoms, near: AtomPairs) -> Bool[np.ndarray, " n"]:
    """The pairs of atoms that make a contact by the rules of Interactome3D: a disulfide, N and O
    (salt bridges, and hydrogen bonds among them), C and C.
    """
    one = atoms.elements[near.first]
    other = atoms.elements[near.second]
    carbons = (one == CARBON) & (other == CARBON) & (near.distance <= CARBON_CARBON)
    polar = ((one == NITROGEN) & (other == OXYGEN)) | ((one == OXYGEN) & (other == NITROGEN))
    cysteine = atoms.residue_names == "CYS"
    sulfurs = (one == SULFUR) & (other == SULFUR) & (near.distance <= DISULFIDE)
    sulfurs &= cysteine[near.first] & cysteine[near.second]
    return carbons | sulfurs | (polar & (near.distance <= NITROGEN_OXYGEN))


def residue_ranges(layout: Layout, mask: Bool[np.ndarray, " T"], chain: int) -> str:
    """The residues of a chain that a mask of tokens names, such as `A:3-9,14`; empty for none."""
    tokens = mask & (layout.token_chain == chain)
    residues = np.unique(layout.token_residue[tokens])
    if not len(residues):
        return ""
    breaks = np.flatnonzero(np.diff(residues) > 1)
    starts = residues[np.concatenate([[0], breaks + 1])]
    ends = residues[np.concatenate([breaks, [len(residues) - 1]])]
    runs = zip(starts.tolist(), ends.tolist(), strict=True)
    text = ",".join(f"{start}-{end}" if start < end else f"{start}" for start, end in runs)
    return f"{layout.chain_names[chain]}:{text}"
