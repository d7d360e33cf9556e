"""Bonds and contact conditions between tokens, as lists and never as N x N arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from foldcp.chemistry.vocabulary import COVALENT
from foldcp.complex import Complex, Token
from foldcp.features.tokens import TokenizedComplex

# Kinds of contact, as Boltz-2 numbers them.
UNSPECIFIED, UNSELECTED, POCKET_TO_BINDER, BINDER_TO_POCKET, CONTACT = range(5)


@dataclass(frozen=True)
class ContactConditions:
    """Listed pairs (i, j, kind) with their thresholds in Å, and the kind of all other pairs."""

    pairs: Int[np.ndarray, "K 3"]
    thresholds: Float[np.ndarray, " K"]
    default: int


def _last_of_each(pairs: Int[np.ndarray, "n k"], num_tokens: int) -> Int[np.ndarray, " m"]:
    """Indices of the last occurrence of every (i, j), ordered by (i, j)."""
    key = pairs[:, 0] * num_tokens + pairs[:, 1]
    _, first_from_end = np.unique(key[::-1], return_index=True)
    return len(key) - 1 - first_from_end


def _residue_index(complex: Complex, tokenized: TokenizedComplex, chain: str, number: int) -> int:
    """Row of a residue given as (name of a chain that exists, residue from 1)."""
    index = tokenized.chains.name.index(chain)
    first, last = tokenized.chains.first_residue[index : index + 2].tolist()
    if not 1 <= number <= last - first:
        raise ValueError(
            f"complex {complex.name}: chain {chain} has no residue {number} (of {last - first})"
        )
    return first + number - 1


def _atom_index(
    complex: Complex, tokenized: TokenizedComplex, chain: str, number: int, name: str
) -> int:
    """Index of an atom given as (chain name, residue from 1, atom name)."""
    names = tokenized.chains.name
    if chain not in names:
        raise ValueError(
            f"complex {complex.name}: a constraint names the chain {chain!r}, which does not exist"
        )
    residue = _residue_index(complex, tokenized, chain, number)
    component = tokenized.residues.component[residue]
    if name not in component.atom_names:
        known = " ".join(component.atom_names)
        raise ValueError(
            f"complex {complex.name}: residue {number} of chain {chain} ({component.code}) has no "
            f"atom {name!r}, only {known}"
        )
    return int(tokenized.residues.first_atom[residue]) + component.atom_names.index(name)


def covalent_bonds(complex: Complex, tokenized: TokenizedComplex) -> Int[np.ndarray, "B 3"]:
    """The bonds of the input, as (atom, atom, bond type)."""
    rows = [
        (
            _atom_index(complex, tokenized, *bond.atom1),
            _atom_index(complex, tokenized, *bond.atom2),
            COVALENT,
        )
        for bond in complex.bonds
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def token_bonds(
    tokenized: TokenizedComplex, covalent: Int[np.ndarray, "B 3"]
) -> Int[np.ndarray, "E 3"]:
    """(token, token, bond type + 1) in both directions, one per pair.

    A bond inside a modified residue is its token's with itself. Where a pair of tokens has several
    bonds, the last counts, as in Boltz.
    """
    bonds = np.concatenate([tokenized.bonds, covalent])
    first = tokenized.atoms.token[bonds[:, 0]]
    second = tokenized.atoms.token[bonds[:, 1]]
    kind = bonds[:, 2] + 1
    forward = np.stack([first, second, kind], 1)
    backward = np.stack([second, first, kind], 1)
    both = np.stack([forward, backward], 1).reshape(-1, 3)
    return both[_last_of_each(both, len(tokenized.tokens.type))]


def cyclic_period(
    complex: Complex, tokenized: TokenizedComplex, covalent: Int[np.ndarray, "B 3"]
) -> Float[np.ndarray, " T"]:
    """Number of residues of a cyclic chain at its tokens, 0 elsewhere.

    A chain is cyclic if the input marks it so, or if it is a protein and a bond joins the C of its
    last residue to the N of its first. In Boltz any bond between the two residues makes a chain
    cyclic, a disulfide too, but in the first chain alone.
    """
    lengths = np.diff(tokenized.chains.first_residue)
    closed = [
        chain.cyclic or _is_closed(tokenized, i, covalent) for i, chain in enumerate(complex.chains)
    ]
    return np.where(closed, lengths, 0)[tokenized.token_chain].astype(np.float32)


def _is_closed(tokenized: TokenizedComplex, chain: int, covalent: Int[np.ndarray, "B 3"]) -> bool:
    """Whether a peptide bond closes a chain of three residues or more, head to tail."""
    start, stop = tokenized.chains.first_residue[chain : chain + 2].tolist()
    if tokenized.chains.kind[chain] != "protein" or stop - start <= 2:
        return False
    ends = {(start, "N"), (stop - 1, "C")}
    residue = tokenized.atoms.residue
    name = tokenized.atoms.name
    for bond in covalent[:, :2].tolist():
        if {(int(residue[atom]), name[atom]) for atom in bond} == ends:
            return True
    return False


def closing_bonds(complex: Complex, tokenized: TokenizedComplex) -> Int[np.ndarray, "K 2"]:
    """The bond between the last residue and the first of each chain that the input marks as cyclic:
    (C, N) of a protein, (O3', P) of a nucleic acid. Without it for a residue that lacks the atom.
    """
    bonds = []
    for index, chain in enumerate(complex.chains):
        first, end = tokenized.chains.first_residue[index : index + 2].tolist()
        if not chain.cyclic or end - first < 2:
            continue
        names = ("C", "N") if chain.kind == "protein" else ("O3'", "P")
        atoms = [
            _atom_of(tokenized, residue, name)
            for residue, name in zip((end - 1, first), names, strict=True)
        ]
        if None not in atoms:
            bonds.append(atoms)
    return np.array(bonds, dtype=np.int64).reshape(-1, 2)


def _atom_of(tokenized: TokenizedComplex, residue: int, name: str) -> int | None:
    """Index of an atom of a row of the residue table; None if the component lacks it."""
    names = tokenized.residues.component[residue].atom_names
    if name not in names:
        return None
    return int(tokenized.residues.first_atom[residue]) + names.index(name)


def resolve_tokens(complex: Complex, tokenized: TokenizedComplex, token: Token) -> list[int]:
    """Indices of (chain, residue from 1), or of (ligand, atom name of its first component)."""
    chain, residue_or_atom = token
    kinds = dict(zip(tokenized.chains.name, tokenized.chains.kind, strict=True))
    if kinds.get(chain, "ligand") != "ligand":
        if not isinstance(residue_or_atom, int):
            raise ValueError(
                f"complex {complex.name}: invalid residue number {residue_or_atom!r} of chain "
                f"{chain}, which is a polymer"
            )
        residue = _residue_index(complex, tokenized, chain, residue_or_atom)
        return np.flatnonzero(tokenized.tokens.residue == residue).tolist()
    atom = _atom_index(complex, tokenized, chain, 1, str(residue_or_atom))
    return [int(tokenized.atoms.token[atom])]


def resolve_all(
    complex: Complex, tokenized: TokenizedComplex, tokens: Iterable[Token]
) -> list[int]:
    """Indices of all named tokens, ascending, each once."""
    return sorted({i for token in tokens for i in resolve_tokens(complex, tokenized, token)})


def contact_conditions(complex: Complex, tokenized: TokenizedComplex) -> ContactConditions:
    """Pockets and contacts as conditions of the network.

    A pair that is named twice keeps its last condition, as in Boltz.
    """
    rows: list[tuple[int, int, int, float]] = []
    for pocket in complex.pockets:
        if pocket.binder not in tokenized.chains.name:
            raise ValueError(
                f"complex {complex.name}: the binder {pocket.binder!r} of a pocket does not exist"
            )
        chain = tokenized.chains.name.index(pocket.binder)
        binder = np.flatnonzero(tokenized.token_chain == chain).tolist()
        # Boltz goes through the tokens in order, not through the contacts.
        for token in resolve_all(complex, tokenized, pocket.contacts):
            rows += [(i, token, BINDER_TO_POCKET, pocket.max_distance) for i in binder]
            rows += [(token, i, POCKET_TO_BINDER, pocket.max_distance) for i in binder]
    for contact in complex.contacts:
        i = resolve_tokens(complex, tokenized, contact.token1)[0]
        j = resolve_tokens(complex, tokenized, contact.token2)[0]
        rows += [
            (i, j, CONTACT, contact.max_distance),
            (j, i, CONTACT, contact.max_distance),
        ]
    pairs = np.array([row[:3] for row in rows], dtype=np.int64).reshape(-1, 3)
    keep = _last_of_each(pairs, len(tokenized.tokens.type))
    thresholds = np.array([row[3] for row in rows], dtype=np.float32)
    other_pairs = UNSELECTED if rows else UNSPECIFIED
    return ContactConditions(pairs[keep], thresholds[keep], other_pairs)
