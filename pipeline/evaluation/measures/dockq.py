"""DockQ of an interface: contacts that are kept, and deviations of interface and ligand."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from foldcp.pipeline.evaluation.matching.chain_pair import ChainPair
from foldcp.pipeline.evaluation.measures.superposition import (
    rmsd,
    superposed_rmsd,
    superposition,
)
from foldcp.pipeline.evaluation.structures.chain import Chain

CONTACT = 5.0  # Å, between heavy atoms of residues in contact
INTERFACE = 10.0  # Å, between heavy atoms of residues of the interface
IRMSD_SCALE = 1.5  # Å
LRMSD_SCALE = 8.5  # Å
MIN_ATOMS = 3  # that make a superposition


@dataclass(frozen=True, slots=True)
class InterfaceScores:
    """Measures of a predicted interface. `irmsd`, `lrmsd` and `dockq` are NaN where a side has no
    backbone atoms in common.
    """

    num_reference_contacts: int
    num_contacts: int
    fnat: float
    fnonnat: float
    irmsd: float
    lrmsd: float
    dockq: float


class ContactMap:
    """Pairs of residues of two chains of one structure within a distance, each found once."""

    def __init__(self) -> None:
        self._found: dict[tuple[Chain, Chain, float], Int[np.ndarray, "C 2"]] = {}

    def find(self, first: Chain, second: Chain, cutoff: float) -> Int[np.ndarray, "C 2"]:
        """The pairs whose heavy atoms come nearer than the cutoff."""
        if (second, first, cutoff) in self._found:
            return self._found[second, first, cutoff][:, ::-1]
        key = (first, second, cutoff)
        if key not in self._found:
            self._found[key] = find_contacts(first, second, cutoff)
        return self._found[key]


@dataclass(frozen=True, eq=False)
class Contacts:
    """The contacts of a reference, which its predictions share, and those of one prediction."""

    reference: ContactMap = field(default_factory=ContactMap)
    model: ContactMap = field(default_factory=ContactMap)


def find_contacts(first: Chain, second: Chain, cutoff: float) -> Int[np.ndarray, "C 2"]:
    """Pairs of residues of two chains whose heavy atoms come nearer than the cutoff, sorted."""
    lowest, highest = np.stack([first.box, second.box], axis=1)
    if (lowest.max(axis=0) - highest.min(axis=0) >= cutoff).any():
        return np.zeros((0, 2), dtype=int)
    found = first.tree.sparse_distance_matrix(second.tree, cutoff, output_type="ndarray")
    near = found[found["v"] < cutoff]
    residues = np.stack([first.atom_residue[near["i"]], second.atom_residue[near["j"]]], axis=1)
    return np.unique(residues, axis=0)


def score_interface(a: ChainPair, b: ChainPair, contacts: Contacts) -> InterfaceScores | None:
    """DockQ and its parts; None where the chains do not touch in the reference.

    As DockQ 2 has them: contacts are residues nearer than 5 Å, of which the native ones count
    whether or not they are predicted; the interface are residues nearer than 10 Å; the receptor,
    onto which LRMSD superposes, is the chain with more residues in the reference. Only identical
    residues are compared. Sources: Basu and Wallner 2016, Mirabello and Wallner 2024.
    """
    native = contacts.reference.find(a.reference, b.reference, CONTACT)
    if not len(native):
        return None
    reference_pairs = _as_columns(native, a, b, of_model=False)
    model_pairs = _as_columns(contacts.model.find(a.model, b.model, CONTACT), a, b, of_model=True)
    num_kept = len(np.intersect1d(_keys(reference_pairs, b), _keys(model_pairs, b)))
    fnat = num_kept / len(native)
    fnonnat = 1 - num_kept / len(model_pairs) if len(model_pairs) else 0.0
    irmsd = _interface_rmsd(a, b, contacts)
    lrmsd = _ligand_rmsd(a, b)
    return InterfaceScores(
        num_reference_contacts=len(native),
        num_contacts=len(model_pairs),
        fnat=fnat,
        fnonnat=fnonnat,
        irmsd=irmsd,
        lrmsd=lrmsd,
        dockq=(fnat + _closeness(irmsd, IRMSD_SCALE) + _closeness(lrmsd, LRMSD_SCALE)) / 3,
    )


def _closeness(distance: float, scale: float) -> float:
    return 1 / (1 + (distance / scale) ** 2)


def _as_columns(
    pairs: Int[np.ndarray, "C 2"], a: ChainPair, b: ChainPair, of_model: bool
) -> Int[np.ndarray, "C 2"]:
    """The pairs of residues that are identical in both structures, as columns of alignments."""
    sides = []
    for pair, residues in ((a, pairs[:, 0]), (b, pairs[:, 1])):
        columns = (pair.column_of_model if of_model else pair.column_of_reference)[residues]
        is_common = pair.is_common[columns] & (columns >= 0)
        sides.append(np.where(is_common, columns, -1))
    found = np.stack(sides, axis=1)
    return found[(found >= 0).all(axis=1)]


def _keys(pairs: Int[np.ndarray, "C 2"], b: ChainPair) -> Int[np.ndarray, " C"]:
    return pairs[:, 0] * len(b.alignment.model) + pairs[:, 1]


def _interface_rmsd(a: ChainPair, b: ChainPair, contacts: Contacts) -> float:
    near = contacts.reference.find(a.reference, b.reference, INTERFACE)
    columns = _as_columns(near, a, b, of_model=False)
    chosen = [
        pair.is_backbone & np.isin(pair.atom_column, columns[:, side])
        for side, pair in enumerate((a, b))
    ]
    if min(int(mask.sum()) for mask in chosen) == 0 or sum(map(np.sum, chosen)) < MIN_ATOMS:
        return np.nan
    moving = np.concatenate([a.model_coords[chosen[0]], b.model_coords[chosen[1]]])
    target = np.concatenate([a.reference_coords[chosen[0]], b.reference_coords[chosen[1]]])
    return superposed_rmsd(moving, target)


def _ligand_rmsd(a: ChainPair, b: ChainPair) -> float:
    is_a_larger = a.reference.num_resolved > b.reference.num_resolved
    receptor = a if is_a_larger else b
    ligand = b if is_a_larger else a
    if receptor.is_backbone.sum() < MIN_ATOMS or not ligand.is_backbone.any():
        return np.nan
    rotation, translation = superposition(
        receptor.model_coords[receptor.is_backbone],
        receptor.reference_coords[receptor.is_backbone],
    )
    moved = ligand.model_coords[ligand.is_backbone] @ rotation + translation
    return rmsd(moved, ligand.reference_coords[ligand.is_backbone])
