"""Tokenization: flat tables of a complex's residues, tokens and atoms.

As in Boltz-2, a standard or modified residue of a polymer is one token, and so is each atom of a
ligand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from foldcp.chemistry.ligands import ccd_component, smiles_component
from foldcp.chemistry.vocabulary import (
    MOL_TYPES,
    TOKEN_IDS,
    UNKNOWN,
    Component,
    residue_codes,
    standard_residue,
)
from foldcp.complex import Chain, Complex


@dataclass(frozen=True, eq=False)
class ChainTable:
    """One row per chain, in the order of the complex."""

    name: list[str]
    kind: list[str]
    entity: Int[np.ndarray, " C"]  # equal for copies of one molecule
    copy: Int[np.ndarray, " C"]  # number among the copies, from 0
    first_residue: Int[np.ndarray, " C+1"]  # row of the residue table; its length at the end


@dataclass(frozen=True, eq=False)
class ResidueTable:
    """One row per residue of a polymer or component of a ligand."""

    component: list[Component]
    chain: Int[np.ndarray, " R"]
    number: Int[np.ndarray, " R"]  # within the chain, from 0
    type: Int[np.ndarray, " R"]  # index in the vocabulary as an MSA sees it
    first_atom: Int[np.ndarray, " R+1"]


@dataclass(frozen=True, eq=False)
class TokenTable:
    """One row per token; the atoms are indices in the atom table."""

    residue: Int[np.ndarray, " T"]  # row of the residue table
    type: Int[np.ndarray, " T"]  # index in the vocabulary
    modified: Bool[np.ndarray, " T"]
    first_atom: Int[np.ndarray, " T"]
    representative: Int[np.ndarray, " T"]
    frame: Int[np.ndarray, "T 3"]


@dataclass(frozen=True, eq=False)
class AtomTable:
    """One row per heavy atom."""

    token: Int[np.ndarray, " A"]
    residue: Int[np.ndarray, " A"]
    name: list[str]
    element: Int[np.ndarray, " A"]
    charge: Int[np.ndarray, " A"]
    position: Float[np.ndarray, "A 3"]  # Å, each residue in its own reference frame


@dataclass(frozen=True, eq=False)
class TokenizedComplex:
    """The four tables of one complex."""

    chains: ChainTable
    residues: ResidueTable
    tokens: TokenTable
    atoms: AtomTable
    bonds: Int[np.ndarray, "B 3"]  # (atom, atom, bond type), within residues that are not standard

    @property
    def token_chain(self) -> Int[np.ndarray, " T"]:
        """Chain of each token."""
        return self.residues.chain[self.tokens.residue]

    @property
    def token_number(self) -> Int[np.ndarray, " T"]:
        """Number of each token's residue within its chain, from 0."""
        return self.residues.number[self.tokens.residue]

    @property
    def token_kind(self) -> Int[np.ndarray, " T"]:
        """Index in `KINDS` of the kind of each token's chain."""
        return np.array([MOL_TYPES[kind] for kind in self.chains.kind])[self.token_chain]


def _components(chain: Chain, ligand_number: int) -> list[Component]:
    if chain.kind != "ligand":
        codes = residue_codes(chain.kind, chain.sequence, chain.modifications)
        return [
            standard_residue(code) if code in TOKEN_IDS else ccd_component(code, chain.kind)
            for code in codes
        ]
    if chain.smiles:
        return [smiles_component(chain.smiles, f"LIG{ligand_number}")]
    return [ccd_component(code, "ligand") for code in chain.ccd]


def _chains(complex: Complex) -> tuple[ChainTable, list[list[Component]]]:
    """The chains, and the components of each.

    Copies are chains of equal molecules; SMILES ligands are named LIG1, LIG2, .. by molecule.
    """
    entities: dict[tuple[object, ...], int] = {}
    smiles: dict[str, int] = {}
    copies: dict[int, int] = {}
    entity = []
    copy = []
    components = []
    for chain in complex.chains:
        molecule = (
            chain.kind,
            chain.sequence,
            chain.modifications,
            chain.cyclic,
            chain.ccd,
            chain.smiles,
        )
        entity.append(entities.setdefault(molecule, len(entities)))
        copy.append(copies.get(entity[-1], 0))
        copies[entity[-1]] = copy[-1] + 1
        if chain.smiles:
            smiles.setdefault(chain.smiles, len(smiles) + 1)
        try:
            components.append(_components(chain, smiles.get(chain.smiles, 0)))
        except ValueError as error:
            raise ValueError(f"complex {complex.name}, chain {chain.name}: {error}") from error
    table = ChainTable(
        name=[chain.name for chain in complex.chains],
        kind=[chain.kind for chain in complex.chains],
        entity=np.array(entity),
        copy=np.array(copy),
        first_residue=np.cumsum([0, *map(len, components)]),
    )
    return table, components


def concat_aranges(counts: Int[np.ndarray, " n"]) -> Int[np.ndarray, " total"]:
    """`np.arange(count)` of each count, concatenated."""
    starts = np.cumsum(counts) - counts
    return np.arange(counts.sum()) - np.repeat(starts, counts)


def tokenize(complex: Complex) -> TokenizedComplex:
    """The tables of a complex.

    Raises ValueError naming the chain, for a component that is unknown or unreadable.
    """
    chains, per_chain = _chains(complex)
    components = [component for chain in per_chain for component in chain]
    unique = list({id(component): component for component in components}.values())
    place = {id(component): index for index, component in enumerate(unique)}
    kind = np.array([place[id(component)] for component in components])  # row -> row of `unique`
    lengths = np.diff(chains.first_residue)
    counts = np.array([component.num_atoms for component in unique])
    residues = ResidueTable(
        component=components,
        chain=np.repeat(np.arange(len(lengths)), lengths),
        number=concat_aranges(lengths),
        type=np.array([TOKEN_IDS[c.code] if c.standard else TOKEN_IDS["UNK"] for c in unique])[
            kind
        ],
        first_atom=np.concatenate([[0], np.cumsum(counts[kind])]),
    )
    tokens = _tokens(chains, residues, unique, kind)

    # Row of each atom in the concatenated atoms of the unique components.
    residue_of_atom = np.repeat(np.arange(len(kind)), counts[kind])
    row = (np.cumsum(counts) - counts)[kind][residue_of_atom] + concat_aranges(counts[kind])
    names = [name for component in unique for name in component.atom_names]
    atoms = AtomTable(
        token=np.searchsorted(tokens.first_atom, np.arange(len(row)), side="right") - 1,
        residue=residue_of_atom,
        name=[names[i] for i in row.tolist()],
        element=np.concatenate([c.elements for c in unique])[row],
        charge=np.concatenate([c.charges for c in unique])[row],
        position=np.concatenate([c.positions for c in unique])[row],
    )
    bonds = [
        c.bonds + np.array([first, first, 0])
        for c, first in zip(components, residues.first_atom[:-1].tolist(), strict=True)
        if len(c.bonds)
    ]
    bonds = np.concatenate([np.zeros((0, 3), dtype=np.int64), *bonds])
    return TokenizedComplex(chains, residues, tokens, atoms, bonds)


def _tokens(
    chains: ChainTable,
    residues: ResidueTable,
    unique: list[Component],
    kind: Int[np.ndarray, " R"],
) -> TokenTable:
    ligand = np.array([name == "ligand" for name in chains.kind])[residues.chain]
    unknown = np.array([TOKEN_IDS[UNKNOWN[name]] for name in chains.kind])[residues.chain]  # type: ignore[index]
    standard = np.array([c.standard for c in unique])[kind]
    atoms = np.diff(residues.first_atom)
    tokens = np.where(ligand, atoms, 1)
    residue = np.repeat(np.arange(len(kind)), tokens)
    first = residues.first_atom[residue] + concat_aranges(tokens)
    representative = np.array([c.representative for c in unique])[kind][residue]
    frame = first[:, None] + np.array([c.frame for c in unique])[kind][residue]

    # A ligand's frames follow its predicted coordinates; these stand in, and only for three atoms
    # or more.
    chain_atoms = np.bincount(residues.chain, weights=atoms).astype(np.int64)[residues.chain][
        residue
    ]
    chain_start = residues.first_atom[chains.first_residue[residues.chain]][residue]
    in_ligand = ligand[residue] & (chain_atoms >= 3)
    frame[in_ligand] = chain_start[in_ligand, None] + np.array([1, 0, 2])
    return TokenTable(
        residue=residue,
        type=np.where(standard, residues.type, unknown)[residue],
        modified=(~standard & ~ligand)[residue],
        first_atom=first,
        representative=first + representative,
        frame=frame,
    )
