"""Tokenization: flat tables of a complex's residues, tokens and atoms.

As in Boltz-2, a standard or modified residue of a polymer is one token, and so is each atom of a
ligand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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


def _chains(complex: Complex) -> tuple[ChainTable, list[Component]]:
    """The chains, and the components of all their residues.

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
    return table, [component for chain in components for component in chain]


def concat_aranges(counts: Int[np.ndarray, " n"]) -> Int[np.ndarray, " total"]:
    """`np.arange(count)` of each count, concatenated."""
    starts = np.cumsum(counts) - counts
    return np.arange(counts.sum()) - np.repeat(starts, counts)


def tokenize(complex: Complex) -> TokenizedComplex:
    """The tables of a complex.

    Raises ValueError naming the chain, for a component that is unknown or unreadable.
    """
    chains, components = _chains(complex)
    unique = _UniqueComponents.of(components)
    residues = _residues(chains, components, unique)
    tokens = _tokens(chains, residues, unique)
    atoms = _atoms(tokens, unique)
    return TokenizedComplex(chains, residues, tokens, atoms, _bonds(residues))


@dataclass(frozen=True, eq=False)
class _UniqueComponents:
    """The different components of a complex, so that tables are made by indexing their arrays."""

    components: list[Component]
    index: Int[np.ndarray, " R"]  # of each residue's component

    @staticmethod
    def of(components: list[Component]) -> _UniqueComponents:
        unique = list({id(component): component for component in components}.values())
        position = {id(component): i for i, component in enumerate(unique)}
        index = np.array([position[id(component)] for component in components])
        return _UniqueComponents(unique, index)

    def per_residue(self, values: list[Any]) -> np.ndarray:
        """The value of each residue, from one of each component."""
        return np.array(values)[self.index]

    @property
    def num_atoms(self) -> Int[np.ndarray, " R"]:
        """Atoms of each residue."""
        return self.per_residue([component.num_atoms for component in self.components])


def _residues(
    chains: ChainTable, components: list[Component], unique: _UniqueComponents
) -> ResidueTable:
    lengths = np.diff(chains.first_residue)
    types = [
        TOKEN_IDS[component.code] if component.standard else TOKEN_IDS["UNK"]
        for component in unique.components
    ]
    return ResidueTable(
        component=components,
        chain=np.repeat(np.arange(len(lengths)), lengths),
        number=concat_aranges(lengths),
        type=unique.per_residue(types),
        first_atom=np.concatenate([[0], np.cumsum(unique.num_atoms)]),
    )


def _tokens(chains: ChainTable, residues: ResidueTable, unique: _UniqueComponents) -> TokenTable:
    components = unique.components
    is_ligand = np.array([kind == "ligand" for kind in chains.kind])[residues.chain]
    standard = unique.per_residue([component.standard for component in components])
    num_tokens = np.where(is_ligand, unique.num_atoms, 1)
    residue = np.repeat(np.arange(len(num_tokens)), num_tokens)
    first_atom = residues.first_atom[residue] + concat_aranges(num_tokens)
    representative = unique.per_residue([component.representative for component in components])
    frame = unique.per_residue([component.frame for component in components])
    unknown = np.array([_unknown_type(kind) for kind in chains.kind])[residues.chain]
    token_frame = first_atom[:, None] + frame[residue]

    # A ligand's frames follow its predicted coordinates. Until then, the first atoms of its chain
    # are the frame of all its tokens, if it has three atoms or more.
    chain_atoms = np.diff(residues.first_atom[chains.first_residue])
    chain = residues.chain[residue]
    has_frame = is_ligand[residue] & (chain_atoms[chain] >= 3)
    chain_start = residues.first_atom[chains.first_residue[chain]]
    token_frame[has_frame] = chain_start[has_frame, None] + np.array([1, 0, 2])
    return TokenTable(
        residue=residue,
        type=np.where(standard, residues.type, unknown)[residue],
        modified=(~standard & ~is_ligand)[residue],
        first_atom=first_atom,
        representative=first_atom + representative[residue],
        frame=token_frame,
    )


def _unknown_type(kind: str) -> int:
    """Index in the vocabulary of a chain's unknown residue."""
    return TOKEN_IDS[UNKNOWN[kind]]  # type: ignore[index]


def _atoms(tokens: TokenTable, unique: _UniqueComponents) -> AtomTable:
    components = unique.components
    sizes = np.array([component.num_atoms for component in components])
    # Row of each atom in the concatenated atoms of the unique components.
    first_row = (np.cumsum(sizes) - sizes)[unique.index]
    residue = np.repeat(np.arange(len(unique.index)), unique.num_atoms)
    row = first_row[residue] + concat_aranges(unique.num_atoms)
    names = [name for component in components for name in component.atom_names]
    return AtomTable(
        token=np.searchsorted(tokens.first_atom, np.arange(len(row)), side="right") - 1,
        residue=residue,
        name=[names[i] for i in row.tolist()],
        element=np.concatenate([component.elements for component in components])[row],
        charge=np.concatenate([component.charges for component in components])[row],
        position=np.concatenate([component.positions for component in components])[row],
    )


def _bonds(residues: ResidueTable) -> Int[np.ndarray, "B 3"]:
    """(atom, atom, bond type) within residues that are not standard."""
    bonds = [np.zeros((0, 3), dtype=np.int64)]
    for component, first in zip(residues.component, residues.first_atom[:-1].tolist(), strict=True):
        if len(component.bonds):
            bonds.append(component.bonds + np.array([first, first, 0]))
    return np.concatenate(bonds)
