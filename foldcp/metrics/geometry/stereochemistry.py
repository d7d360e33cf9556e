"""Stereochemistry of a predicted structure: chirality against the reference, and peptide bonds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from foldcp.features.layout import Layout
from foldcp.metrics.geometry.atoms import StructureAtoms, backbone_atoms

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


@dataclass(frozen=True, eq=False)
class ChiralCenters:
    """Atoms that are chiral in the reference, each with three neighbours, and the sign of the
    volume that the bonds to these span there.
    """

    ligand: Int[np.ndarray, "K 4"]
    ligand_sign: Float[np.ndarray, " K"]
    alpha: Int[np.ndarray, "L 4"]  # of residues of proteins
    alpha_sign: Float[np.ndarray, " L"]


def chiral_centers(
    layout: Layout, reference: Float[np.ndarray, "A 3"], bonds: Int[np.ndarray, "E 3"]
) -> ChiralCenters:
    """The centres of a complex.

    `reference` has the atoms of each residue in a frame of its own, in Å, `bonds` the bonds of
    tokens (i, j, type), both ways.
    """
    ligand = _chiral(reference, _ligand_centers(layout, bonds))
    return ChiralCenters(*ligand, *_chiral(reference, _alpha_centers(layout)))


def stereochemistry(atoms: StructureAtoms, centers: ChiralCenters) -> Stereochemistry:
    """The checks of a structure."""
    ligand = np.sign(_volume(atoms.coords, centers.ligand))
    alpha = np.sign(_volume(atoms.coords, centers.alpha))
    omega, length, before_proline = _peptides(atoms)
    angle = np.abs(omega)
    off = np.abs(length - PEPTIDE_BOND) > MAX_DEVIATION * PEPTIDE_SIGMA
    return Stereochemistry(
        ligand_centers=len(centers.ligand),
        ligand_errors=int((ligand != centers.ligand_sign).sum()),
        residue_errors=int((alpha != centers.alpha_sign).sum()),
        cis_peptides=int(((angle < CIS) & ~before_proline).sum()),
        twisted_peptides=int(((angle >= CIS) & (angle < TWISTED)).sum()),
        bad_peptide_bonds=int(off.sum()),
    )


def _chiral(
    reference: Float[np.ndarray, "A 3"], centers: Int[np.ndarray, "K 4"]
) -> tuple[Int[np.ndarray, "k 4"], Float[np.ndarray, " k"]]:
    """Those of the atoms and their neighbours that are chiral in the reference, and their sign."""
    volume = _volume(reference, centers)
    chiral = np.abs(volume) > MIN_CHIRALITY
    return centers[chiral], np.sign(volume[chiral])


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


def _alpha_centers(layout: Layout) -> Int[np.ndarray, "K 4"]:
    """CA, N, C and CB of the residues of proteins that have them all."""
    backbone = backbone_atoms(layout)
    centers = np.stack([backbone[name] for name in ("CA", "N", "C", "CB")], 1)
    return centers[(centers >= 0).all(1)]


def _ligand_centers(layout: Layout, bonds: Int[np.ndarray, "E 3"]) -> Int[np.ndarray, "K 4"]:
    """Carbons of ligands with three neighbours in their residue, or four, that differ; and the
    first three of them. A token of a ligand is an atom.
    """
    neighbours = _neighbours(layout, bonds)
    classes = _classes(layout, neighbours)
    first_atom = np.searchsorted(layout.atom_token, np.arange(len(layout.token_chain)))
    centers = []
    for token, near in neighbours.items():
        different = {classes[other] for other in near}
        element = layout.atom_element[first_atom[token]]
        if element == CARBON and len(near) in (3, 4) and len(different) == len(near):
            centers.append([token, *sorted(near)[:3]])
    return first_atom[np.array(centers, dtype=np.int64).reshape(-1, 4)]


Neighbours = dict[int, list[int]]  # tokens that are bonded to a token


def _neighbours(layout: Layout, bonds: Int[np.ndarray, "E 3"]) -> Neighbours:
    """The bonded tokens of each token of a ligand, in the same residue."""
    ligand = np.array(layout.chain_kinds) == "ligand"
    neighbours: Neighbours = {}
    for i, j, _ in bonds.tolist():
        same = layout.token_chain[i] == layout.token_chain[j]
        same &= layout.token_residue[i] == layout.token_residue[j]
        if same and i != j and ligand[layout.token_chain[i]]:
            neighbours.setdefault(i, []).append(j)
    return neighbours


def _classes(layout: Layout, neighbours: Neighbours) -> dict[int, int]:
    """Equal numbers for tokens that their bonds do not tell apart, by refinement from the elements
    (Morgan 1965); without the types of bonds, which depend on how a ring or an anion is drawn.
    """
    first_atom = np.searchsorted(layout.atom_token, np.arange(len(layout.token_chain)))
    classes = {token: int(layout.atom_element[first_atom[token]]) for token in neighbours}
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
    points = atoms.backbone
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
