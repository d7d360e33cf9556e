"""The components that Boltz-2 reads (one pickled RDKit molecule per CCD code), from the CCD that
comes with biotite.

usage: python make_mols.py OUT_DIR
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
from biotite.structure.info.ccd import get_from_ccd
from boltz.data import const
from rdkit import Chem, RDLogger
from rdkit.Geometry import Point3D

CODES = [token for token in const.tokens if token not in ("<pad>", "-")]
CODES += ["ATP", "HEM", "MG", "ZN", "NAG", "MSE", "SEP", "PTR", "5CM", "PSU"]
BONDS = {
    "SING": Chem.BondType.SINGLE,
    "DOUB": Chem.BondType.DOUBLE,
    "TRIP": Chem.BondType.TRIPLE,
}
METAL_BOND = Chem.MolFromSmarts("[Mg,Fe,Zn]~[!#1]")


def coordinates(atoms) -> np.ndarray:
    """The ideal ones; the model's where the ideal ones are incomplete."""
    for pattern in ("pdbx_model_Cartn_{}_ideal", "model_Cartn_{}"):
        xyz = np.stack(
            [atoms[pattern.format(axis)].as_array(float, np.nan) for axis in "xyz"],
            axis=1,
        )
        if np.isfinite(xyz).all():
            return xyz
    raise ValueError("no complete set of coordinates")


def atoms_of(code: str) -> Chem.RWMol:
    """The atoms with the properties that Boltz asks for, and one conformer."""
    atoms = get_from_ccd("chem_comp_atom", code)
    mol = Chem.RWMol()
    columns = [
        atoms[name].as_array(str) for name in ("atom_id", "type_symbol", "pdbx_leaving_atom_flag")
    ]
    for name, symbol, leaving, charge in zip(
        *columns, atoms["charge"].as_array(int, 0), strict=True
    ):
        atom = Chem.Atom("*" if symbol == "X" else symbol.capitalize())
        atom.SetFormalCharge(int(charge))
        atom.SetNoImplicit(True)  # the CCD lists every hydrogen
        atom.SetProp("name", str(name))
        atom.SetProp("leaving_atom", str(int(leaving == "Y")))
        mol.AddAtom(atom)
    conformer = Chem.Conformer(mol.GetNumAtoms())
    for index, xyz in enumerate(coordinates(atoms)):
        conformer.SetAtomPosition(index, Point3D(*map(float, xyz)))
    mol.AddConformer(conformer, assignId=True)
    return mol


def bind(mol: Chem.RWMol, code: str) -> None:
    """The bonds; those of an over-valent donor to a metal (the iron of a haem) become dative."""
    bonds = get_from_ccd("chem_comp_bond", code)
    index = {atom.GetProp("name"): atom.GetIdx() for atom in mol.GetAtoms()}
    if bonds is not None:
        columns = [bonds[name].as_array(str) for name in ("atom_id_1", "atom_id_2", "value_order")]
        for first, second, order in zip(*columns, strict=True):
            mol.AddBond(index[first], index[second], BONDS[order])
    for problem in Chem.DetectChemistryProblems(mol):
        for metal, donor in mol.GetSubstructMatches(METAL_BOND):
            if problem.GetType() == "AtomValenceException" and donor == problem.GetAtomIdx():
                mol.RemoveBond(metal, donor)
                mol.AddBond(donor, metal, Chem.BondType.DATIVE)


def build(code: str) -> Chem.Mol:
    """One component, without hydrogens, with its stereochemistry."""
    mol = atoms_of(code)
    bind(mol, code)
    Chem.SanitizeMol(mol)
    mol = mol.GetMol()
    Chem.AssignStereochemistryFrom3D(mol, 0)
    if mol.GetNumHeavyAtoms() > 1:
        mol = Chem.RemoveHs(mol)
    Chem.AssignStereochemistry(mol, force=True)
    missing = set(const.ref_atoms.get(code, [])) - {atom.GetProp("name") for atom in mol.GetAtoms()}
    assert not missing, f"{code}: Boltz expects the atoms {missing}"
    return mol


if __name__ == "__main__":
    RDLogger.DisableLog("rdApp.*")
    Chem.SetDefaultPickleProperties(Chem.PropertyPickleOptions.AllProps)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for code in CODES:
        (out / f"{code}.pkl").write_bytes(pickle.dumps(build(code)))
