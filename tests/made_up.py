"""Made-up layouts and predictions, for tests of what is written about them."""

from __future__ import annotations

from itertools import islice

import numpy as np

from foldcp.complex import chain_names
from foldcp.features import Layout

PARTS = {  # residue -> its atoms
    "ALA": "N CA C O CB",
    "GLY": "N CA C O",
    "SER": "N CA C O CB OG",
    "MSE": "N CA C O CB CG SE CE",
    "UNK": "N CA C O CB",
    "DA": "P O5' C5' C4' N9",
    "DN": "P O5' C5'",
    "N": "P O5' C5'",
    "U": "P O5' C5' C1' N1",
    "ATP": "PG O1G C5' N9",
    "NAG": "C1 C2 O5",
    "ZN": "ZN",
}
ATOMIC_NUMBERS = {"C": 6, "N": 7, "O": 8, "P": 15, "S": 16, "SE": 34, "ZN": 30}
TOKEN_PER_ATOM = {"MSE", "ATP", "NAG", "ZN"}


def made_up_layout(chains: list[tuple[str, list[str]]], names: list[str] | None = None) -> Layout:
    """A layout of (kind, residues) chains; equal chains are copies of one entity."""
    entities: dict[tuple[str, ...], int] = {}
    chain, residue, name, atom_token, atom_name, element = [], [], [], [], [], []
    for c, (_, residues) in enumerate(chains):
        for number, code in enumerate(residues, 1):
            for i, atom in enumerate(PARTS[code].split()):
                if i == 0 or code in TOKEN_PER_ATOM:
                    chain.append(c)
                    residue.append(number)
                    name.append(code)
                atom_token.append(len(chain) - 1)
                atom_name.append(atom)
                element.append(ATOMIC_NUMBERS[atom if atom in ("SE", "ZN") else atom[0]])
    return Layout(
        chain_names=names or list(islice(chain_names(), len(chains))),
        chain_kinds=[kind for kind, _ in chains],
        chain_entities=np.array([entities.setdefault((k, *r), len(entities)) for k, r in chains]),
        token_chain=np.array(chain),
        token_residue=np.array(residue),
        token_name=name,
        atom_token=np.array(atom_token),
        atom_name=atom_name,
        atom_element=np.array(element),
    )
