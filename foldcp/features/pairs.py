"""What is said about pairs of tokens (bonds, contacts), as lists and never as N x N arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from foldcp.chemistry.vocabulary import COVALENT
from foldcp.complex import Complex, Token
from foldcp.features.tokens import Tables

# Kinds of contact, as Boltz-2 numbers them.
UNSPECIFIED, UNSELECTED, POCKET_TO_BINDER, BINDER_TO_POCKET, CONTACT = range(5)


@dataclass(frozen=True)
class Contacts:
    """Listed pairs (i, j, kind) with their thresholds in Å, and the kind of all other pairs."""

    pairs: Int[np.ndarray, "K 3"]
    thresholds: Float[np.ndarray, " K"]
    default: int


def _last_of_each(pairs: Int[np.ndarray, "n k"], num_tokens: int) -> Int[np.ndarray, " m"]:
    """Rows to keep so that every (i, j) occurs once, its last occurrence winning; ordered by (i,
    j).
    """
    key = pairs[:, 0] * num_tokens + pairs[:, 1]
    _, first_from_end = np.unique(key[::-1], return_index=True)
    return len(key) - 1 - first_from_end


def _atom(complex: Complex, tables: Tables, chain: str, number: int, name: str) -> int:
    """Row of an atom given as (chain name, residue from 1, atom name)."""
    names = tables.chains.name
    if chain not in names:
        raise ValueError(
            f"complex {complex.name}: a constraint names the chain {chain!r}, which does not exist"
        )
    first, last = tables.chains.first_residue[names.index(chain) :][:2]
    if not 1 <= number <= last - first:
        raise ValueError(
            f"complex {complex.name}: chain {chain} has no residue {number} (of {last - first})"
        )
    residue = first + number - 1
    component = tables.residues.component[residue]
    if name not in component.atom_names:
        known = " ".join(component.atom_names)
        raise ValueError(
            f"complex {complex.name}: residue {number} of chain {chain} ({component.code}) has no "
            f"atom {name!r}, "
            f"but {known}"
        )
    return int(tables.residues.first_atom[residue]) + component.atom_names.index(name)


def covalent_bonds(complex: Complex, tables: Tables) -> Int[np.ndarray, "B 3"]:
    """The bonds that the user asks for, as (atom, atom, bond type)."""
    rows = [
        (
            _atom(complex, tables, *bond.atom1),
            _atom(complex, tables, *bond.atom2),
            COVALENT,
        )
        for bond in complex.bonds
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def token_bonds(tables: Tables, covalent: Int[np.ndarray, "B 3"]) -> Int[np.ndarray, "E 3"]:
    """(token, token, bond type + 1) in both directions, one per pair. A bond inside a modified
    residue is its token's with itself; where a pair of tokens has several bonds, the last counts,
    as in Boltz.
    """
    bonds = np.concatenate([tables.bonds, covalent])
    first = tables.atoms.token[bonds[:, 0]]
    second = tables.atoms.token[bonds[:, 1]]
    kind = bonds[:, 2] + 1
    both = np.stack(
        [np.stack([first, second, kind], 1), np.stack([second, first, kind], 1)], 1
    ).reshape(-1, 3)
    return both[_last_of_each(both, len(tables.tokens.type))]


def cyclic_period(
    complex: Complex, tables: Tables, covalent: Int[np.ndarray, "B 3"]
) -> Float[np.ndarray, " T"]:
    """Number of residues of a cyclic chain at its tokens, 0 elsewhere.

    A chain is cyclic if it says so, or if it is a protein and a bond joins the C of its last
    residue to the N of its first. Boltz takes any bond between the two residues for that, a
    disulfide too, but in the first chain alone.
    """
    lengths = np.diff(tables.chains.first_residue)
    closed = [
        chain.cyclic or _is_closed(tables, i, covalent) for i, chain in enumerate(complex.chains)
    ]
    return np.where(closed, lengths, 0)[tables.token_chain].astype(np.float32)


def _is_closed(tables: Tables, chain: int, covalent: Int[np.ndarray, "B 3"]) -> bool:
    """Whether a peptide bond closes a chain of three residues or more, head to tail."""
    start, stop = tables.chains.first_residue[chain : chain + 2].tolist()
    if tables.chains.kind[chain] != "protein" or stop - start <= 2:
        return False
    ends = {(start, "N"), (stop - 1, "C")}
    residue = tables.atoms.residue
    name = tables.atoms.name
    return any(
        {(int(residue[atom]), name[atom]) for atom in bond} == ends
        for bond in covalent[:, :2].tolist()
    )


def named_tokens(complex: Complex, tables: Tables, token: Token) -> list[int]:
    """Tokens named by (chain, residue from 1), or by (ligand, atom name of its first component)."""
    chain, place = token
    kinds = dict(zip(tables.chains.name, tables.chains.kind, strict=True))
    if kinds.get(chain, "ligand") != "ligand":
        if not isinstance(place, int):
            raise ValueError(
                f"complex {complex.name}: chain {chain} is a polymer, {place!r} is no "
                "residue number"
            )
        first, last = tables.chains.first_residue[tables.chains.name.index(chain) :][:2]
        if not 1 <= place <= last - first:
            raise ValueError(
                f"complex {complex.name}: chain {chain} has no residue {place} (of {last - first})"
            )
        return np.flatnonzero(tables.tokens.residue == first + place - 1).tolist()
    return [int(tables.atoms.token[_atom(complex, tables, chain, 1, str(place))])]


def contacts(complex: Complex, tables: Tables) -> Contacts:
    """Pockets and contacts as conditions; a pair that is named twice keeps its last condition,
    as in Boltz.
    """
    rows: list[tuple[int, int, int, float]] = []
    for pocket in complex.pockets:
        if pocket.binder not in tables.chains.name:
            raise ValueError(
                f"complex {complex.name}: the binder {pocket.binder!r} of a pocket does not exist"
            )
        binder = np.flatnonzero(
            tables.token_chain == tables.chains.name.index(pocket.binder)
        ).tolist()
        # Boltz goes through the tokens in order, not through the contacts.
        for token in sorted(
            {t for contact in pocket.contacts for t in named_tokens(complex, tables, contact)}
        ):
            rows += [(i, token, BINDER_TO_POCKET, pocket.max_distance) for i in binder]
            rows += [(token, i, POCKET_TO_BINDER, pocket.max_distance) for i in binder]
    for contact in complex.contacts:
        i, j = (
            named_tokens(complex, tables, token)[0] for token in (contact.token1, contact.token2)
        )
        rows += [
            (i, j, CONTACT, contact.max_distance),
            (j, i, CONTACT, contact.max_distance),
        ]
    pairs = np.array([row[:3] for row in rows], dtype=np.int64).reshape(-1, 3)
    keep = _last_of_each(pairs, len(tables.tokens.type))
    thresholds = np.array([row[3] for row in rows], dtype=np.float32)
    return Contacts(pairs[keep], thresholds[keep], UNSELECTED if rows else UNSPECIFIED)
