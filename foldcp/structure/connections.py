"""Bonds between residues: those of the input, and disulfides that the coordinates show."""

from __future__ import annotations

import gemmi
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from foldcp.structure.molecules import Molecules
from foldcp.structure.tables import INAPPLICABLE, UNKNOWN, Missing, Tables

# Å; a disulfide bond has 2.05.
DISULFIDE = (1.8, 2.4)
_METALS = frozenset(n for n in range(1, 119) if gemmi.Element(n).is_metal)


def connection_tables(molecules: Molecules, coords: Float[np.ndarray, "A 3"]) -> Tables:
    """`struct_conn`, where there are such bonds."""
    given = [tuple(sorted(pair)) for pair in molecules.layout.covalent.tolist()]
    seen = _disulfides(molecules, coords)
    pairs = list(dict.fromkeys([*given, *seen]))
    if not pairs:
        return {}
    types = [_type(molecules, first, second) for first, second in pairs]
    first, second = (np.array(atoms) for atoms in zip(*pairs, strict=True))
    lengths = np.linalg.norm(coords[first] - coords[second], axis=1)
    is_given = set(given)
    return {
        "struct_conn": {
            "id": _numbered(types),
            "conn_type_id": types,
            **_partner(molecules, first, "1"),
            **_partner(molecules, second, "2"),
            "pdbx_dist_value": lengths,
            "details": [
                UNKNOWN if pair in is_given else "found by its length, not given in the input"
                for pair in pairs
            ],
        },
        "struct_conn_type": {"id": sorted(set(types))},
    }


def _numbered(types: list[str]) -> list[str]:
    """covale1, covale2, disulf1, .. as in the PDB."""
    counts: dict[str, int] = {}
    names = []
    for type in types:
        counts[type] = counts.get(type, 0) + 1
        names.append(f"{type}{counts[type]}")
    return names


def _type(molecules: Molecules, first: int, second: int) -> str:
    layout = molecules.layout
    if layout.atom_name[first] == layout.atom_name[second] == "SG":
        return "disulf"
    elements = {int(layout.atom_element[first]), int(layout.atom_element[second])}
    return "metalc" if elements & _METALS else "covale"


def _partner(molecules: Molecules, atoms: Int[np.ndarray, " K"], number: str) -> dict:
    """The columns that name one end of each bond."""
    layout = molecules.layout
    residues = molecules.residue_of_atom[atoms].tolist()
    names = [molecules.residue_name[residue] for residue in residues]
    numbers = [molecules.residue_number[residue] for residue in residues]
    labels: list[int | Missing] = [
        molecules.label_number(residue) or INAPPLICABLE for residue in residues
    ]
    chains = [molecules.residue_chain[residue] for residue in residues]
    prefix = f"ptnr{number}"
    return {
        f"{prefix}_label_asym_id": [molecules.instance_of_residue[r].label for r in residues],
        f"{prefix}_label_comp_id": names,
        f"{prefix}_label_seq_id": labels,
        f"{prefix}_label_atom_id": [layout.atom_name[atom] for atom in atoms.tolist()],
        f"pdbx_{prefix}_label_alt_id": [UNKNOWN for _ in residues],
        f"pdbx_{prefix}_PDB_ins_code": [UNKNOWN for _ in residues],
        f"{prefix}_auth_asym_id": [molecules.chain_names[chain] for chain in chains],
        f"{prefix}_auth_comp_id": names,
        f"{prefix}_auth_seq_id": numbers,
        f"{prefix}_symmetry": ["1_555" for _ in residues],
    }


def _disulfides(molecules: Molecules, coords: Float[np.ndarray, "A 3"]) -> list[tuple[int, int]]:
    """Pairs of SG of cysteines that are as far apart as in a disulfide, and have one such partner.

    A structure that has collapsed, as with random weights, shows none.
    """
    layout = molecules.layout
    names = molecules.residue_name
    residues = molecules.residue_of_atom.tolist()
    sulfurs = np.array(
        [
            atom
            for atom, name in enumerate(layout.atom_name)
            if name == "SG" and names[residues[atom]] == "CYS"
        ],
        dtype=np.int64,
    )
    if len(sulfurs) < 2:
        return []
    shortest, longest = DISULFIDE
    pairs = KDTree(coords[sulfurs]).query_pairs(longest, output_type="ndarray")
    partners = np.bincount(pairs.ravel(), minlength=len(sulfurs))
    pairs = sulfurs[pairs[(partners[pairs] == 1).all(axis=1)]]
    lengths = np.linalg.norm(coords[pairs[:, 0]] - coords[pairs[:, 1]], axis=1)
    return [(min(pair), max(pair)) for pair in sorted(pairs[lengths >= shortest].tolist())]
