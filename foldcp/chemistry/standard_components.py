"""The residues of the vocabulary in the CCD: what features and structure files need of them.

python -m foldcp.chemistry.standard_components      writes standard_components.json again
"""

from __future__ import annotations

import json

from foldcp.chemistry.ccd import STANDARD_FILE, Categories, dictionary_column
from foldcp.chemistry.vocabulary import STANDARD_ATOMS

COLUMNS = {
    "chem_comp": ("type", "name", "one_letter_code", "formula", "formula_weight"),
    "chem_comp_atom": (
        "atom_id",
        "type_symbol",
        "charge",
        "pdbx_leaving_atom_flag",
        "pdbx_model_Cartn_x_ideal",
        "pdbx_model_Cartn_y_ideal",
        "pdbx_model_Cartn_z_ideal",
    ),
    "chem_comp_bond": ("atom_id_1", "atom_id_2", "value_order", "pdbx_aromatic_flag"),
}


def standard_components() -> dict[str, Categories]:
    """The residues by code, from the dictionary."""
    return {
        code: {
            category: {name: dictionary_column(category, code, name) or [] for name in names}
            for category, names in COLUMNS.items()
        }
        for code in STANDARD_ATOMS
    }


if __name__ == "__main__":
    lines = [f"{json.dumps(code)}: {json.dumps(of)}" for code, of in standard_components().items()]
    STANDARD_FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
