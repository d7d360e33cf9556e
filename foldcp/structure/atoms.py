"""Atoms: names, coordinates and B-factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from foldcp.structure.components import is_standard
from foldcp.structure.molecules import Molecules
from foldcp.structure.predicted import PredictedStructure
from foldcp.structure.tables import INAPPLICABLE, UNKNOWN, Missing, Tables

T = TypeVar("T")


def atom_tables(structure: PredictedStructure, molecules: Molecules) -> Tables:
    """`atom_site` and the elements in it.

    Modified residues and ligands are HETATM. Formal charges are those of the components; they are
    left out of standard residues, whose protonation the network does not know.
    """
    layout = structure.layout
    A = len(structure.coords)
    of_atom = molecules.residue_of_atom.tolist()

    def per_atom(per_residue: Sequence[T]) -> list[T]:
        return [per_residue[residue] for residue in of_atom]

    R = molecules.num_residues
    standard = [
        kind != "ligand" and is_standard(name)
        for name, kind in zip(molecules.residue_name, molecules.residue_kind, strict=True)
    ]
    numbers: list[int | Missing] = [
        molecules.label_number(residue) or INAPPLICABLE for residue in range(R)
    ]
    component = per_atom(molecules.residue_name)
    instances = molecules.instance_of_residue
    charges: list[int | Missing] = [
        UNKNOWN if is_known else charge
        for charge, is_known in zip(layout.atom_charge.tolist(), per_atom(standard), strict=True)
    ]
    return {
        "atom_type": {"symbol": sorted(set(molecules.atom_symbol))},
        "atom_site": {
            "group_PDB": per_atom(["ATOM" if known else "HETATM" for known in standard]),
            "id": list(range(1, A + 1)),
            "type_symbol": molecules.atom_symbol,
            "label_atom_id": layout.atom_name,
            "label_alt_id": [INAPPLICABLE] * A,
            "label_comp_id": component,
            "label_asym_id": per_atom([instance.label for instance in instances]),
            "label_entity_id": per_atom([instance.entity + 1 for instance in instances]),
            "label_seq_id": per_atom(numbers),
            "pdbx_PDB_ins_code": [UNKNOWN] * A,
            "auth_seq_id": per_atom(molecules.residue_number),
            "auth_comp_id": component,
            "auth_asym_id": per_atom([molecules.chain_names[i.chain] for i in instances]),
            "auth_atom_id": layout.atom_name,
            "Cartn_x": structure.coords[:, 0],
            "Cartn_y": structure.coords[:, 1],
            "Cartn_z": structure.coords[:, 2],
            "occupancy": [1] * A,
            "B_iso_or_equiv": 100 * structure.plddt[layout.atom_token],
            "pdbx_formal_charge": charges,
            "pdbx_PDB_model_num": [1] * A,
        },
    }
