"""Modified residues, ligands and ions, read with RDKit (an optional extra)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from foldcp.chemistry.ccd import ccd_column
from foldcp.chemistry.vocabulary import (
    BOND_TYPES,
    MAX_NAME_CHARS,
    Component,
    ccd_atoms,
    frame_atoms,
)
from foldcp.complex import Kind

if TYPE_CHECKING:
    from rdkit.Chem import Mol, RWMol

# A bond to one of these makes a donor over-valent in the CCD (the nitrogens of haem): the bond
# becomes dative.
_METALS = frozenset(
    [
        3,
        4,
        *range(11, 14),
        *range(19, 32),
        *range(37, 51),
        *range(55, 84),
        *range(87, 104),
    ]
)
_CONFORMER_SEED = 42


@contextmanager
def quiet_rdkit(what: str) -> Iterator[None]:
    """Silence RDKit's log, and say what to install where it is missing."""
    try:
        from rdkit import rdBase
    except ModuleNotFoundError as error:
        raise ValueError(f"{what} is read with RDKit: pip install 'foldcp[ligands]'") from error
    with rdBase.BlockLogs():
        yield


@cache
def ccd_component(code: str, kind: Kind) -> Component:
    """A CCD component: a whole ligand, or a modified residue without its leaving atoms.

    Atoms come in the order of the CCD without hydrogens; bonds carry the orders and the aromaticity
    that RDKit perceives. Raises ValueError for an unknown code or one that RDKit cannot read.
    """
    ccd = ccd_atoms(code)
    with quiet_rdkit(f"CCD component {code!r}"):
        mol = ccd_molecule(code)
        charges = np.array([atom.GetFormalCharge() for atom in mol.GetAtoms()])
        keep = [
            i
            for i, element in enumerate(ccd.elements.tolist())
            if element != 1 and not (kind != "ligand" and ccd.leaving[i])
        ]
        bonds = _bonds(mol, keep)
    if not keep:
        raise ValueError(f"CCD component {code!r} has no heavy atoms")
    names = tuple(ccd.names[i] for i in keep)
    _check_names(names, f"CCD component {code!r}")
    frame = (0, 0, 0)
    if kind in ("dna", "rna") and len(names) >= 3:  # Boltz has frames of modified nucleotides only
        frame = frame_atoms(names, nucleotide=True)
    return Component(
        code=code,
        standard=False,
        atom_names=names,
        elements=ccd.elements[keep],
        charges=charges[keep],
        positions=ccd.positions[keep],
        bonds=bonds,
        center=0,
        representative=0,
        frame=frame,
    )


@cache
def smiles_component(smiles: str, code: str) -> Component:
    """A ligand from its SMILES string, with one conformer (ETKDG v3, fixed seed, then UFF; Å).

    Heavy atoms are named by element and canonical rank from 1, as in Boltz with hydrogens counted,
    unless a name would exceed the four characters that the network reads. Raises ValueError for a
    string that RDKit cannot read or embed.
    """
    with quiet_rdkit(f"SMILES {smiles!r}"):
        from rdkit.Chem import rdmolfiles, rdmolops

        mol = rdmolfiles.MolFromSmiles(smiles)
        if mol is None or not mol.GetNumAtoms():
            raise ValueError(f"invalid SMILES {smiles!r}: RDKit cannot read it")
        mol = rdmolops.AddHs(mol)
        labels = _labels(mol, list(rdmolfiles.CanonicalRankAtoms(mol)), smiles)
        rdmolops.AssignStereochemistry(mol, force=True, cleanIt=True)
        positions = _embed(mol, smiles)
        elements = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
        charges = np.array([atom.GetFormalCharge() for atom in mol.GetAtoms()])
        keep = np.flatnonzero(elements != 1).tolist()
        if not keep:
            raise ValueError(f"SMILES {smiles!r} has no heavy atoms")
        if not elements.all():
            raise ValueError(f"SMILES {smiles!r} has an atom without an element (*)")
        bonds = _bonds(mol, keep)
    return Component(
        code=code,
        standard=False,
        atom_names=tuple(labels[i] for i in keep),
        elements=elements[keep],
        charges=charges[keep],
        positions=positions[keep],
        bonds=bonds,
        center=0,
        representative=0,
        frame=(0, 0, 0),
    )


def _labels(mol: Mol, ranks: list[int], smiles: str) -> list[str]:
    """Names of a molecule's atoms by element and rank.

    Where one is too long, hydrogens get the last ranks, and those of the heavy atoms stay short.
    """
    symbols = [atom.GetSymbol().upper() for atom in mol.GetAtoms()]
    labels = [f"{symbol}{rank + 1}" for symbol, rank in zip(symbols, ranks, strict=True)]
    if max(map(len, labels)) > MAX_NAME_CHARS:
        order = sorted(range(len(ranks)), key=lambda atom: (symbols[atom] == "H", ranks[atom]))
        for place, atom in enumerate(order):
            labels[atom] = f"{symbols[atom]}{place + 1}"
    heavy = [label for symbol, label in zip(symbols, labels, strict=True) if symbol != "H"]
    _check_names(heavy, f"SMILES {smiles!r}")
    return labels


def _embed(mol: Mol, smiles: str) -> np.ndarray:
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    options = rdDistGeom.ETKDGv3()
    options.randomSeed = _CONFORMER_SEED
    if rdDistGeom.EmbedMolecule(mol, options) == -1:
        options.useRandomCoords = True
        if rdDistGeom.EmbedMolecule(mol, options) == -1:
            raise ValueError(f"SMILES {smiles!r}: RDKit finds no conformer")
    if rdForceFieldHelpers.UFFHasAllMoleculeParams(mol):
        rdForceFieldHelpers.UFFOptimizeMolecule(mol, maxIters=1000)
    return mol.GetConformer().GetPositions()


def ccd_molecule(code: str) -> Mol:
    """A CCD component as a sanitised molecule with hydrogens, atoms in the order of the CCD."""
    from rdkit import Chem

    ccd = ccd_atoms(code)
    mol = Chem.RWMol()
    for element, charge in zip(ccd.elements.tolist(), ccd.charges.tolist(), strict=True):
        atom = Chem.Atom(element)
        atom.SetFormalCharge(charge)
        atom.SetNoImplicit(True)  # the CCD lists every hydrogen
        mol.AddAtom(atom)
    orders = {
        "SING": Chem.BondType.SINGLE,
        "DOUB": Chem.BondType.DOUBLE,
        "TRIP": Chem.BondType.TRIPLE,
    }
    index = {name: i for i, name in enumerate(ccd.names)}
    columns = [
        ccd_column("chem_comp_bond", code, name)
        for name in ("atom_id_1", "atom_id_2", "value_order")
    ]
    # A component of one atom has no bonds.
    bonds = zip(
        *(column for column in columns if column is not None),
        strict=True,
    )
    for first, second, order in bonds:
        mol.AddBond(index[first], index[second], orders[order])
    _make_dative(mol)
    try:
        Chem.SanitizeMol(mol)
    except ValueError as error:
        raise ValueError(f"RDKit cannot read CCD component {code!r}: {error}") from error
    return mol


def _make_dative(mol: RWMol) -> None:
    """Turn the bonds between over-valent donors and metals into dative ones."""
    from rdkit import Chem

    for problem in Chem.DetectChemistryProblems(mol):
        if problem.GetType() != "AtomValenceException":
            continue
        donor = problem.GetAtomIdx()
        for metal in [
            a.GetIdx()
            for a in mol.GetAtomWithIdx(donor).GetNeighbors()
            if a.GetAtomicNum() in _METALS
        ]:
            mol.RemoveBond(metal, donor)
            mol.AddBond(donor, metal, Chem.BondType.DATIVE)


def _bonds(mol: Mol, keep: list[int]) -> np.ndarray:
    """(lower atom, higher atom, bond type) of the bonds within `keep`, in its indices."""
    index = {atom: i for i, atom in enumerate(keep)}
    bonds = []
    for bond in mol.GetBonds():
        first = bond.GetBeginAtomIdx()
        second = bond.GetEndAtomIdx()
        if first in index and second in index:
            name = bond.GetBondType().name
            kind = BOND_TYPES.index(name) if name in BOND_TYPES else BOND_TYPES.index("OTHER")
            bonds.append((*sorted((index[first], index[second])), kind))
    return np.array(bonds, dtype=np.int64).reshape(-1, 3)


def _check_names(names: tuple[str, ...] | list[str], what: str) -> None:
    """The network reads four characters of an atom's name, each of 64 kinds."""
    for name in names:
        if len(name) > MAX_NAME_CHARS or not all(32 <= ord(character) < 96 for character in name):
            raise ValueError(
                f"{what}: the network cannot read the atom name {name!r}, it reads names of at "
                f"most {MAX_NAME_CHARS} characters"
            )
