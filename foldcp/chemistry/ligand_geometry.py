"""Geometry of ligands and modified residues after RDKit: distance bounds, chirality, planarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from foldcp.chemistry.ligands import ccd_molecule, quiet_rdkit
from foldcp.chemistry.vocabulary import ccd_atoms

if TYPE_CHECKING:
    from rdkit.Chem import Atom, Mol

# An sp2 carbon, its two neighbours, and the same of the carbon at the other end of the double bond.
_PLANAR_BOND = "[C;X3;^2](*)(*)=[C;X3;^2](*)(*)"


@dataclass(frozen=True, eq=False)
class Geometry:
    """The restraints of one molecule; columns hold indices of the heavy atoms of the network."""

    pairs: Int[np.ndarray, "2 D"]  # all pairs of heavy atoms
    lower: Float[np.ndarray, " D"]  # Å
    upper: Float[np.ndarray, " D"]  # Å
    bond: Bool[np.ndarray, " D"]  # bonded
    angle: Bool[np.ndarray, " D"]  # bonded to a common atom
    # three neighbours and the centre; the dihedral angle of R is positive
    chiral: Int[np.ndarray, "4 K"]
    chiral_r: Bool[np.ndarray, " K"]
    stereo: Int[np.ndarray, "4 S"]  # a substituent, the bond's start, its end, a substituent there
    stereo_e: Bool[np.ndarray, " S"]  # whether the substituents lie on opposite sides
    # a double bond's start and its two substituents, its end and its two
    planar: Int[np.ndarray, "6 L"]


def _no_terms(*shape: int) -> Int[np.ndarray, "..."]:
    return np.zeros((*shape, 0), dtype=np.int64)


def _no_values(kind: type) -> np.ndarray:
    return np.zeros(0, dtype=kind)


EMPTY = Geometry(
    pairs=_no_terms(2),
    lower=_no_values(np.float32),
    upper=_no_values(np.float32),
    bond=_no_values(bool),
    angle=_no_values(bool),
    chiral=_no_terms(4),
    chiral_r=_no_values(bool),
    stereo=_no_terms(4),
    stereo_e=_no_values(bool),
    planar=_no_terms(6),
)


@cache
def ccd_geometry(code: str, atom_names: tuple[str, ...]) -> Geometry:
    """The geometry of a CCD component with the stereochemistry of its ideal coordinates.

    The network sees the atoms `atom_names` of it. Raises ValueError without RDKit or for a
    component that RDKit cannot read.
    """
    ccd = ccd_atoms(code)
    with quiet_rdkit(f"CCD component {code!r}"):
        from rdkit import Chem

        mol = ccd_molecule(code)
        conformer = Chem.Conformer(len(ccd.names))
        for i, position in enumerate(ccd.positions.tolist()):
            conformer.SetAtomPosition(i, position)
        mol.AddConformer(conformer, assignId=True)
        for atom, name in zip(mol.GetAtoms(), ccd.names, strict=True):
            atom.SetProp("name", name)
        Chem.AssignStereochemistryFrom3D(mol, 0)
        if mol.GetNumHeavyAtoms() > 1:
            mol = Chem.RemoveHs(mol)
        Chem.AssignStereochemistry(mol, force=True)
        index = {name: i for i, name in enumerate(atom_names)}
        names = [atom.GetProp("name") for atom in mol.GetAtoms()]
        return _geometry(mol, {i: index[name] for i, name in enumerate(names) if name in index})


@cache
def smiles_geometry(smiles: str) -> Geometry:
    """The geometry of a SMILES string's molecule. Raises ValueError without RDKit."""
    with quiet_rdkit(f"SMILES {smiles!r}"):
        from rdkit import Chem

        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        Chem.AssignStereochemistry(mol, force=True, cleanIt=True)
        heavy = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() != 1]
        return _geometry(mol, {atom: i for i, atom in enumerate(heavy)})


def _geometry(mol: Mol, index: dict[int, int]) -> Geometry:
    """The geometry of a molecule; `index` gives the network's index of an atom that it sees."""
    from rdkit import Chem
    from rdkit.Chem.rdDistGeom import GetMoleculeBoundsMatrix

    mol.UpdatePropertyCache(strict=False)
    Chem.GetSymmSSSR(mol)
    bounds = np.zeros((mol.GetNumAtoms(), mol.GetNumAtoms()))
    if len(index) > 1:
        bounds = GetMoleculeBoundsMatrix(
            mol,
            set15bounds=True,
            scaleVDW=True,
            doTriangleSmoothing=True,
            useMacrocycle14config=False,
        )
    bonds = {_ends(match) for match in _substructures(mol, "*~*")}
    angles = {_ends(match) for match in _substructures(mol, "*~*~*")}
    planar_bonds: list[Term] = [(match, True) for match in _substructures(mol, _PLANAR_BOND)]
    pairs = [(i, j) for i in sorted(index) for j in sorted(index) if i < j]
    ranked = all(atom.HasProp("_CIPRank") for atom in mol.GetAtoms())
    chiral, chiral_r = _renumbered(_chiral(mol) if ranked else [], 4, index)
    stereo, stereo_e = _renumbered(_stereo(mol) if ranked else [], 4, index)
    return Geometry(
        pairs=np.array([(index[i], index[j]) for i, j in pairs], dtype=np.int64).reshape(-1, 2).T,
        lower=np.array([bounds[j, i] for i, j in pairs], dtype=np.float32),
        upper=np.array([bounds[i, j] for i, j in pairs], dtype=np.float32),
        bond=np.array([pair in bonds for pair in pairs], dtype=bool),
        angle=np.array([pair in angles for pair in pairs], dtype=bool),
        chiral=chiral,
        chiral_r=chiral_r,
        stereo=stereo,
        stereo_e=stereo_e,
        planar=_renumbered(planar_bonds, 6, index)[0],
    )


def _substructures(mol: Mol, pattern: str) -> Sequence[tuple[int, ...]]:
    """The atoms of each match of a SMARTS pattern."""
    from rdkit import Chem

    return mol.GetSubstructMatches(Chem.MolFromSmarts(pattern))


def _ends(match: tuple[int, ...]) -> tuple[int, int]:
    """The first and last atom of a match, ascending."""
    return min(match[0], match[-1]), max(match[0], match[-1])


Term = tuple[Sequence[int], bool]  # atoms, and whether the molecule is R or E there


def _chiral(mol: Mol) -> list[Term]:
    """Each centre with three of its neighbours, so that the dihedral angle of R is positive."""
    from rdkit import Chem

    terms: list[Term] = []
    for index, label in Chem.FindMolChiralCenters(mol, includeUnassigned=False):
        centre = mol.GetAtomWithIdx(index)
        near = _by_rank(list(centre.GetNeighbors()))
        if len(near) > 4 or centre.GetHybridization() != Chem.HybridizationType.SP3:
            continue
        a, b, c, *last = near
        orders = [(a, b, c)]
        for d in last:
            orders += [(d, c, b), (a, c, d), (d, b, a)]
        terms += [((*order, index), label == "R") for order in orders]
    return terms


def _stereo(mol: Mol) -> list[Term]:
    """Each double bond with its substituents of highest rank, and those of lowest rank.

    The latter are listed where both ends have two substituents.
    """
    from rdkit import Chem

    terms: list[Term] = []
    for bond in mol.GetBonds():
        if bond.GetStereo() not in (Chem.BondStereo.STEREOE, Chem.BondStereo.STEREOZ):
            continue
        start = bond.GetBeginAtom()
        end = bond.GetEndAtom()
        first = _by_rank([atom for atom in start.GetNeighbors() if atom.GetIdx() != end.GetIdx()])
        last = _by_rank([atom for atom in end.GetNeighbors() if atom.GetIdx() != start.GetIdx()])
        opposite = bond.GetStereo() == Chem.BondStereo.STEREOE
        for k in range(2 if len(first) == len(last) == 2 else 1):
            terms.append(((first[k], start.GetIdx(), end.GetIdx(), last[k]), opposite))
    return terms


def _by_rank(atoms: list[Atom]) -> list[int]:
    """Indices in descending CIP rank."""
    return [
        atom.GetIdx() for atom in sorted(atoms, key=lambda atom: -int(atom.GetProp("_CIPRank")))
    ]


def _renumbered(
    terms: list[Term], width: int, index: dict[int, int]
) -> tuple[Int[np.ndarray, "width K"], Bool[np.ndarray, " K"]]:
    """Terms all of whose atoms the network sees, in its indices, and their flags."""
    seen = [(atoms, flag) for atoms, flag in terms if all(atom in index for atom in atoms)]
    rows = np.array([[index[atom] for atom in atoms] for atoms, _ in seen], dtype=np.int64)
    return rows.reshape(-1, width).T, np.array([flag for _, flag in seen], dtype=bool)
