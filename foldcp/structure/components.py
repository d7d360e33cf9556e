"""Chemical components: their types and names after the CCD, atoms and bonds."""

from __future__ import annotations

import re
from functools import cache

import gemmi
import numpy as np

from foldcp.chemistry.ccd import ccd_column
from foldcp.chemistry.vocabulary import BOND_TYPES
from foldcp.structure.molecules import Molecules
from foldcp.structure.tables import UNKNOWN, Missing, Table, Tables, or_unknown

# What the CCD writes in upper case, as ModelCIF does.
_UPPER_WORDS = re.compile(r"\b(l|d|c|dna|rna|oh|nh3|cooh)\b")
# (value_order, pdbx_aromatic_flag) of the bonds that RDKit perceived in a SMILES string. A dative
# bond (OTHER) is single, as in the CCD.
_ORDERS = {
    "OTHER": ("sing", "N"),
    "SINGLE": ("sing", "N"),
    "DOUBLE": ("doub", "N"),
    "TRIPLE": ("trip", "N"),
    "AROMATIC": ("arom", "Y"),
}


@cache
def _ccd_text(code: str, column: str) -> str:
    """A value of a component in the CCD; empty where it has none."""
    values = ccd_column("chem_comp", code, column)
    text = "" if values is None else values[0]
    return "" if text in ("?", ".") else text


def component_type(code: str) -> str:
    """The type of a CCD component as ModelCIF spells it; empty for what the CCD does not have."""
    text = _ccd_text(code, "type").lower()
    return _UPPER_WORDS.sub(lambda match: match[0].upper(), text)


def component_name(code: str) -> str:
    """The name of a CCD component; empty for what the CCD does not have."""
    return _ccd_text(code, "name")


def is_sugar(code: str) -> bool:
    """Whether the CCD says that a component is a saccharide."""
    return "saccharide" in component_type(code)


def parent_letter(code: str) -> str:
    """The letter of a residue, for a modified one that of its parent; X if there is none."""
    letter = _ccd_text(code, "one_letter_code")
    return letter if len(letter) == 1 else "X"


def is_standard(code: str) -> bool:
    """Whether a residue of a polymer has a letter of its own, or is an unknown one."""
    return gemmi.find_tabulated_residue(code).is_standard()


def component_tables(molecules: Molecules) -> Tables:
    """The different components with their atoms and bonds."""
    codes = sorted(set(molecules.residue_name))
    smiles = _smiles(molecules)
    polymer_codes = {
        name
        for name, kind in zip(molecules.residue_name, molecules.residue_kind, strict=True)
        if kind != "ligand"
    }
    formulas = [_ccd_text(code, "formula") for code in codes]
    weights = [_ccd_text(code, "formula_weight") for code in codes]
    is_local = [code in smiles or not component_type(code) for code in codes]
    tables: Tables = {
        "chem_comp": {
            "id": codes,
            "type": [
                "non-polymer" if local else component_type(code)
                for code, local in zip(codes, is_local, strict=True)
            ],
            "mon_nstd_flag": [_nonstandard_flag(code, polymer_codes) for code in codes],
            "name": [or_unknown(component_name(code)) for code in codes],
            "formula": _unless(is_local, formulas),
            "formula_weight": _unless(is_local, weights),
            "ma_provenance": ["CCD local" if local else "CCD Core" for local in is_local],
        },
    }
    if smiles:
        tables["ma_chem_comp_descriptor"] = {
            "ordinal_id": list(range(1, len(smiles) + 1)),
            "chem_comp_id": list(smiles),
            "type": ["Isomeric SMILES"] * len(smiles),
            "value": list(smiles.values()),
        }
    atoms = _atoms_of_components(molecules)
    tables["chem_comp_atom"] = _component_atoms(molecules, atoms)
    bonds = _component_bonds(molecules, atoms, set(smiles))
    if bonds["comp_id"]:
        tables["chem_comp_bond"] = bonds
    return tables


def _unless(is_local: list[bool], values: list[str]) -> list[str | Missing]:
    """Values of the CCD, unknown for components that it does not have."""
    pairs = zip(is_local, values, strict=True)
    return [UNKNOWN if local else or_unknown(value) for local, value in pairs]


def _nonstandard_flag(code: str, polymer_codes: set[str]) -> str | Missing:
    if code not in polymer_codes:
        return UNKNOWN
    return "n" if is_standard(code) else "y"


def _smiles(molecules: Molecules) -> dict[str, str]:
    """Code -> SMILES string, of the ligands that were given as one."""
    found = {}
    for name, chain in zip(molecules.residue_name, molecules.residue_chain, strict=True):
        if smiles := molecules.layout.chain_smiles[chain]:
            found[name] = smiles
    return found


def _atoms_of_components(molecules: Molecules) -> dict[str, dict[str, int]]:
    """Code -> name -> index of an atom of this name, over all atoms that a component has anywhere.

    As a ligand, an amino acid has an atom more than within a chain.
    """
    kinds = zip(molecules.residue_name, molecules.residue_kind, strict=True)
    residues = {kind: residue for residue, kind in enumerate(kinds)}
    found: dict[str, dict[str, int]] = {}
    for (code, _), residue in sorted(residues.items()):
        atoms = found.setdefault(code, {})
        first, last = molecules.first_atom[residue : residue + 2].tolist()
        for atom in range(first, last):
            atoms.setdefault(molecules.layout.atom_name[atom], atom)
    return found


def _component_atoms(molecules: Molecules, atoms: dict[str, dict[str, int]]) -> Table:
    layout = molecules.layout
    indices = [atom for names in atoms.values() for atom in names.values()]
    return {
        "comp_id": [code for code, names in atoms.items() for _ in names],
        "atom_id": [layout.atom_name[atom] for atom in indices],
        "type_symbol": [molecules.atom_symbol[atom] for atom in indices],
        "charge": layout.atom_charge[indices].tolist(),
    }


def _component_bonds(
    molecules: Molecules, atoms: dict[str, dict[str, int]], smiles: set[str]
) -> Table:
    bonds: list[tuple[str, str, str, str, str]] = []
    for code, names in atoms.items():
        rows = _layout_bonds(molecules, names) if code in smiles else _ccd_bonds(code)
        bonds += [
            (code, first, second, order.lower(), aromatic)
            for first, second, order, aromatic in rows
            if first in names and second in names
        ]
    columns = ("comp_id", "atom_id_1", "atom_id_2", "value_order", "pdbx_aromatic_flag")
    return {name: [bond[i] for bond in bonds] for i, name in enumerate(columns)}


@cache
def _ccd_bonds(code: str) -> list[tuple[str, str, str, str]]:
    """(atom, atom, order, whether it is aromatic) of a CCD component."""
    columns = [
        ccd_column("chem_comp_bond", code, name)
        for name in ("atom_id_1", "atom_id_2", "value_order", "pdbx_aromatic_flag")
    ]
    return list(zip(*(column for column in columns if column is not None), strict=True))


def _layout_bonds(molecules: Molecules, names: dict[str, int]) -> list[tuple[str, str, str, str]]:
    """The same of a component whose bonds the layout has."""
    layout = molecules.layout
    is_mine = np.isin(layout.bonds[:, 0], list(names.values()))
    return [
        (layout.atom_name[first], layout.atom_name[second], *_ORDERS[BOND_TYPES[kind]])
        for first, second, kind in layout.bonds[is_mine].tolist()
    ]
