"""Atoms between which contacts of tokens are measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foldcp.chemistry.vocabulary import TOKEN_IDS
from foldcp.features.layout import Layout

# Of a modified residue, the first that it has; a purine has N9.
MODIFIED_PROTEIN = ("CB", "CA")
MODIFIED_PURINE = ("C4", "C1'")
MODIFIED_PYRIMIDINE = ("C2", "C1'")


def modified_contact_atoms(layout: Layout) -> dict[int, int]:
    """Token -> atom between which contacts of a modified residue are measured: its CB, its CA
    without one, or an atom of its base.

    Of other tokens it is the network's representative atom (CB, CA of glycine, C4 or C2 of a base,
    the atom of a ligand). That of a modified residue is its first atom, a placeholder of Boltz's.
    """
    atoms = {}
    for token in modified_tokens(layout):
        kind = layout.chain_kinds[layout.token_chain[token]]
        names = token_atoms(layout, token)
        if kind == "protein":
            candidates: Sequence[str] = MODIFIED_PROTEIN
        else:
            candidates = MODIFIED_PURINE if "N9" in names else MODIFIED_PYRIMIDINE
        found = [names[name] for name in candidates if name in names]
        if found:
            atoms[token] = found[0]
    return atoms


def modified_tokens(layout: Layout) -> list[int]:
    """The tokens that are residues of polymers and not in the network's vocabulary."""
    return [
        token
        for token, name in enumerate(layout.token_name)
        if name not in TOKEN_IDS and layout.chain_kinds[layout.token_chain[token]] != "ligand"
    ]


def token_atoms(layout: Layout, token: int) -> dict[str, int]:
    """Name -> index of the atoms of a token."""
    first, last = np.searchsorted(layout.atom_token, (token, token + 1)).tolist()
    return {layout.atom_name[atom]: atom for atom in range(first, last)}
