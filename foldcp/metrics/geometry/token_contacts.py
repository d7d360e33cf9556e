"""Pairs of tokens of different chains with atoms near each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.features.layout import Layout
from foldcp.metrics.geometry.atoms import NearPairs, StructureAtoms
from foldcp.metrics.geometry.weak_cache import weak_cache

INTERFACE = 5.0  # Å between heavy atoms, strictly below; SPOC's contacts, too
AF2COMPLEX = 4.5  # Å, strictly below
# Å, at most: the rules of Interactome3D that are not part of others (Mosca 2013)
CARBON_CARBON = 5.0
NITROGEN_OXYGEN = 5.5
DISULFIDE = 2.56
CARBON, NITROGEN, OXYGEN, SULFUR = (6, 7, 8, 16)

PairElements = tuple[Int[Tensor, " n"], Int[Tensor, " n"]]  # of the first and the second atoms


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


def token_contacts(atoms: StructureAtoms, near: NearPairs, elements: PairElements) -> TokenContacts:
    """The pairs of tokens, from those of the atoms of different chains within 5.5 Å and their
    `contact_elements`. Waits for the device.
    """
    num_tokens = len(atoms.layout.token_chain)
    token = torch.tensor(atoms.layout.atom_token, device=near.device)
    one, other = token[near.first], token[near.second]
    # Both ways, and each once.
    pairs = torch.cat([one * num_tokens + other, other * num_tokens + one])
    keys, place = pairs.unique(return_inverse=True)
    distance = near.distance.new_full(keys.shape, torch.inf)
    distance.scatter_reduce_(0, place, near.distance.repeat(2), "amin")
    touches = _interactome(near, elements).repeat(2)
    interactome = torch.zeros_like(keys).scatter_reduce_(0, place, touches.long(), "amax")
    first, second = np.divmod(keys.cpu().numpy(), num_tokens)
    return TokenContacts(first, second, distance.cpu().numpy(), interactome.cpu().numpy() > 0)


def contact_elements(atoms: StructureAtoms, near: NearPairs) -> PairElements:
    """The atomic numbers of both atoms of each pair; 0 for a sulfur that is not of a cysteine."""
    elements = torch.from_numpy(_contact_elements(atoms.layout)).to(near.device)
    return elements[near.first], elements[near.second]


@weak_cache
def _contact_elements(layout: Layout) -> Int[np.ndarray, " A"]:
    cysteine = np.array(layout.token_name)[layout.atom_token] == "CYS"
    other_sulfur = (layout.atom_element == SULFUR) & ~cysteine
    return np.where(other_sulfur, 0, layout.atom_element)


def are_polar(elements: PairElements) -> Bool[Tensor, " n"]:
    """Which pairs are of a nitrogen and an oxygen."""
    one, other = elements
    forth = (one == NITROGEN) & (other == OXYGEN)
    return forth | ((one == OXYGEN) & (other == NITROGEN))


def _interactome(near: NearPairs, elements: PairElements) -> Bool[Tensor, " n"]:
    """The pairs of atoms that make a contact by the rules of Interactome3D: a disulfide, N and O
    (salt bridges, and hydrogen bonds among them), C and C.
    """
    one, other = elements
    carbons = (one == CARBON) & (other == CARBON) & (near.distance <= CARBON_CARBON)
    sulfurs = (one == SULFUR) & (other == SULFUR) & (near.distance <= DISULFIDE)
    return carbons | sulfurs | (are_polar(elements) & (near.distance <= NITROGEN_OXYGEN))


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
