"""Stereochemistry of a predicted structure: chirality against the reference, and peptide bonds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from foldcp.metrics.geometry.atoms import StructureAtoms

CARBON = 6
# A centre is chiral in the reference if the three bonds to its neighbours span so much of the
# volume that three unit vectors can span; 0.77 for a tetrahedron, 0 for a plane.
MIN_CHIRALITY = 0.3
PEPTIDE_BOND = 1.336  # Å, C-N (Engh & Huber 2001)
PEPTIDE_SIGMA = 0.023  # Å
MAX_DEVIATION = 5  # sigma, as in the validation reports of the wwPDB
CIS = 30.0  # degrees: |omega| below it is cis
TWISTED = 150.0  # and below this one neither cis nor trans


@dataclass(frozen=True)
class Stereochemistry:
    """Counts over a structure."""

    ligand_centers: int  # chiral carbons of ligands
    ligand_errors: int  # of them, with the other hand than the reference
    residue_errors: int  # residues of proteins whose CA has the other hand than the reference
    cis_peptides: int  # cis bonds before residues that are not proline
    twisted_peptides: int  # neither cis nor trans
    bad_peptide_bonds: int  # with a length that is off


def stereochemistry(
    atoms: StructureAtoms,
    reference: Float[np.ndarray, "A 3"],
    bonds: Int[np.ndarray, "E 3"],
) -> Stereochemistry:
    """The checks of a structure.

    `reference` has the atoms of each residue in a frame of its own, in Å, `bonds` the bonds of
    tokens (i, j, type), both ways.
    """
    centers = _ligand_centers(atoms, bonds)
    is_center, is_error = _inverted(atoms.coords, reference, centers)
    _, alpha_error = _inverted(atoms.coords, reference, _alpha_centers(atoms))
    omega, length, before_proline = _peptides(atoms)
    angle = np.abs(omega)
    off = np.abs(length - PEPTIDE_BOND) > MAX_DEVIATION * PEPTIDE_SIGMA
    return Stereochemistry(
        ligand_centers=int(is_center.sum()),
        ligand_errors=int(is_error.sum()),
        residue_errors=int(alpha_error.sum()),
        cis_peptides=int(((angle < CIS) & ~before_proline).sum()),
        twisted_peptides=int(((angle >= CIS) & (angle < TWISTED)).sum()),
        bad_peptide_bonds=int(off.sum()),
    )


def _inverted(
    coords: Float[np.ndarray, "A 3"],
    reference: Float[np.ndarray, "A 3"],
    centers: Int[np.ndarray, "K 4"],
) -> tuple[np.ndarray, np.ndarray]:
    """Which of the centres (atom and three neighbours) are chiral in the reference, and which of
    those have the other hand.
    """
    expected = _volume(reference, centers)
    found = _volume(coords, centers)
    chiral = np.abs(expected) > MIN_CHIRALITY
    return chiral, chiral & (np.sign(found) != np.sign(expected))


def _volume(
    x: Float[np.ndarray, "A 3"], centers: Int[np.ndarray, "K 4"]
) -> Float[np.ndarray, " K"]:
    """The signed volume that the unit vectors to the three neighbours span; 0 where two atoms
    coincide.
    """
    arms = x[centers[:, 1:]] - x[centers[:, :1]]
    lengths = np.linalg.norm(arms, axis=2, keepdims=True)
    units = np.divide(arms, lengths, out=np.zeros_like(arms), where=lengths > 0)
    return np.linalg.det(units) if len(centers) else np.zeros(0)


def _alpha_centers(atoms: StructureAtoms) -> Int[np.ndarray, "K 4"]:
    """CA, N, C and CB of the residues of proteins that have them all."""
    num_tokens = len(atoms.layout.token_chain)
    centers = np.full((num_tokens, 4), -1)
    protein = atoms.of_kinds("protein")
    for column, name in enumerate(("CA", "N", "C", "CB")):
        rows = np.flatnonzero(protein & (atoms.names == name))
        centers[atoms.layout.atom_token[rows], column] = rows
    return centers[(centers >= 0).all(1)]


def _ligand_centers(atoms: StructureAtoms, bonds: Int[np.ndarray, "E 3"]) -> Int[np.ndarray, "K 4"]:
    """Carbons of ligands with three neighbours in their residue, or four, that differ; and the
    first three of them. A token of a ligand is an atom.
    """
    layout = atoms.layout
    neighbours = _neighbours(atoms, bonds)
    classes = _classes(atoms, neighbours)
    first_atom = np.searchsorted(layout.atom_token, np.arange(len(layout.token_chain)))
    centers = []
    for token, near in neighbours.items():
        different = {classes[other] for other in near}
        element = atoms.elements[first_atom[token]]
        if element == CARBON and len(near) in (3, 4) and len(different) == len(near):
            centers.append([token, *sorted(near)[:3]])
    return first_atom[np.array(centers, dtype=np.int64).reshape(-1, 4)]


Neighbours = dict[int, list[int]]  # tokens that are bonded to a token


def _neighbours(atoms: StructureAtoms, bonds: Int[np.ndarray, "E 3"]) -> Neighbours:
    """The bonded tokens of each token of a ligand, in the same residue."""
    layout = atoms.layout
    ligand = np.array(layout.chain_kinds) == "ligand"
    neighbours: Neighbours = {}
    for i, j, _ in bonds.tolist():
        same = layout.token_chain[i] == layout.token_chain[j]
        same &= layout.token_residue[i] == layout.token_residue[j]
        if same and i != j and ligand[layout.token_chain[i]]:
            neighbours.setdefault(i, []).append(j)
    return neighbours


def _classes(atoms: StructureAtoms, neighbours: Neighbours) -> dict[int, int]:
    """Equal numbers for tokens that their bonds do not tell apart, by refinement from the elements
    (Morgan 1965); without the types of bonds, which depend on how a ring or an anion is drawn.
    """
    first_atom = np.searchsorted(atoms.layout.atom_token, np.arange(len(atoms.layout.token_chain)))
    classes = {token: int(atoms.elements[first_atom[token]]) for token in neighbours}
    number = 0
    while len(set(classes.values())) > number:
        number = len(set(classes.values()))
        labels = {
            token: (classes[token], tuple(sorted(classes[other] for other in near)))
            for token, near in neighbours.items()
        }
        order = {label: rank for rank, label in enumerate(sorted(set(labels.values())))}
        classes = {token: order[label] for token, label in labels.items()}
    return classes


def _peptides(
    atoms: StructureAtoms,
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"], np.ndarray]:
    """omega in degrees and the length of C-N in Å of each peptide bond, and whether a proline
    follows. Residues without CA, C or N have none.
    """
    layout = atoms.layout
    num_tokens = len(layout.token_chain)
    protein = atoms.of_kinds("protein")
    points = {}
    for name in ("N", "CA", "C"):
        rows = np.flatnonzero(protein & (atoms.names == name))
        points[name] = np.full((num_tokens, 3), np.nan)
        points[name][layout.atom_token[rows]] = atoms.coords[rows]
    follows = np.diff(layout.token_chain) == 0
    chain_of = [points["CA"][:-1], points["C"][:-1], points["N"][1:], points["CA"][1:]]
    complete = follows & np.isfinite(np.concatenate(chain_of, 1)).all(1)
    a, b, c, d = (x[complete] for x in chain_of)
    before_proline = np.array(layout.token_name)[1:][complete] == "PRO"
    return _dihedral(a, b, c, d), np.linalg.norm(c - b, axis=1), before_proline


def _dihedral(
    a: Float[np.ndarray, "B 3"],
    b: Float[np.ndarray, "B 3"],
    c: Float[np.ndarray, "B 3"],
    d: Float[np.ndarray, "B 3"],
) -> Float[np.ndarray, " B"]:
    """Dihedral angles in degrees."""
    axis = c - b
    u = np.cross(b - a, axis)
    v = np.cross(axis, d - c)
    sine = (np.cross(u, v) * axis).sum(1)
    cosine = (u * v).sum(1) * np.linalg.norm(axis, axis=1)
    return np.degrees(np.arctan2(sine, cosine))
