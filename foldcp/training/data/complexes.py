"""Complexes of experimental structures, and the coordinates of their atoms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from foldcp.chemistry.ligands import ccd_component
from foldcp.chemistry.vocabulary import LETTERS, UNKNOWN
from foldcp.complex import Bond, Chain, Complex, Kind
from foldcp.features.featurize import METHODS
from foldcp.features.tokens import TokenizedComplex, tokenize
from foldcp.training.data.structure import (
    BondEnd,
    ExperimentalChain,
    ExperimentalStructure,
)

# Names of atoms in the network that files write otherwise, of any residue.
_OLD_NAMES = {"O1P": "OP1", "O2P": "OP2", "C5M": "C7"}


@dataclass(frozen=True, eq=False)
class TokenizedStructure:
    """An experimental structure as the network's tokens, with the coordinates of its A atoms.

    What is not resolved has coordinates and B-factors 0. The chains of the complex are those of the
    structure that the network can read; `chain_number` are their numbers in the structure.
    """

    complex: Complex
    tokenized: TokenizedComplex
    chain_number: tuple[int, ...]
    coords: Float[np.ndarray, "A 3"]  # Å, float32
    resolved: Float[np.ndarray, " A"]  # 1 where the atom was observed
    bfactors: Float[np.ndarray, " A"]  # Å²


def tokenize_structure(structure: ExperimentalStructure, *, ligands: bool) -> TokenizedStructure:
    """The tokens of a structure.

    A modified residue that cannot be read is taken for its parent. Ligands that cannot be read are
    left out, with `ligands` false all of them. Raises ValueError naming the structure: nothing is
    left, or RDKit is missing.
    """
    try:
        kept = [
            number
            for number, chain in enumerate(structure.chains)
            if chain.kind != "ligand" or (ligands and _is_readable(chain))
        ]
        chains = [structure.chains[number] for number in kept]
        complex = Complex(
            structure.name,
            tuple(_chain(chain, ligands) for chain in chains),
            method=method_of(structure.method),
        )
    except ValueError as error:
        raise ValueError(f"structure {structure.name}: {error}") from error
    tokenized = tokenize(complex)
    bonds = tuple(_bonds(structure, complex, tokenized))
    rows = _observed_rows(chains, tokenized)
    resolved = rows >= 0
    coords = np.concatenate([chain.coords for chain in chains])
    bfactors = np.concatenate([chain.bfactors for chain in chains])
    return TokenizedStructure(
        complex=replace(complex, bonds=bonds),
        tokenized=tokenized,
        chain_number=tuple(kept),
        coords=np.where(resolved[:, None], coords[rows], 0).astype(np.float32),
        resolved=resolved.astype(np.float32),
        bfactors=np.where(resolved, bfactors[rows], 0).astype(np.float32),
    )


def method_of(method: str) -> str:
    """The experimental method as the features know it."""
    return method if method in METHODS else "other"


def _is_readable(chain: ExperimentalChain) -> bool:
    """Whether the network can read all components of a ligand. Raises ValueError where RDKit is
    missing.
    """
    return all(_can_be_read(code, "ligand") for code in chain.codes)


@cache
def _can_be_read(code: str, kind: Kind) -> bool:
    if find_spec("rdkit") is None:
        raise ValueError(
            f"{code}: ligands and modified residues are read with RDKit: pip install "
            "'foldcp[ligands]', or leave them out with ligands: false"
        )
    try:
        ccd_component(code, kind)
    except ValueError:
        return False
    return True


def _chain(chain: ExperimentalChain, ligands: bool) -> Chain:
    if chain.kind == "ligand":
        return Chain(chain.name, "ligand", ccd=chain.codes)
    standard = {*LETTERS[chain.kind].values(), UNKNOWN[chain.kind], "MSE"}
    modifications = tuple(
        (place, code)
        for place, code in enumerate(chain.codes, 1)
        if code not in standard and ligands and _can_be_read(code, chain.kind)
    )
    return Chain(
        chain.name,
        chain.kind,
        chain.letters,
        modifications=modifications,
        single_sequence=True,
    )


def with_msas(complex: Complex, msas: Mapping[str, Path]) -> Complex:
    """A complex whose chains have alignments, by their names."""
    chains = tuple(
        replace(chain, msa=msas[chain.name]) if chain.name in msas else chain
        for chain in complex.chains
    )
    return replace(complex, chains=chains)


def _observed_rows(
    chains: list[ExperimentalChain], tokenized: TokenizedComplex
) -> Int[np.ndarray, " A"]:
    """The number of each atom among the observed ones of all chains; -1 for others."""
    observed: dict[tuple[int, int, str], int] = {}
    row = 0
    for number, chain in enumerate(chains):
        for residue, name in zip(chain.atom_residue.tolist(), chain.atom_names, strict=True):
            observed[number, residue, _network_name(name, chain.codes[residue])] = row
            row += 1
    residues = tokenized.residues
    places = zip(
        residues.chain[tokenized.atoms.residue].tolist(),
        residues.number[tokenized.atoms.residue].tolist(),
        tokenized.atoms.name,
        strict=True,
    )
    return np.array([observed.get(place, -1) for place in places])


def _network_name(name: str, code: str) -> str:
    """The name of an atom in the network, which reads selenomethionine as methionine."""
    if code == "MSE":
        return "SD" if name == "SE" else name
    return _OLD_NAMES.get(name, name.replace("*", "'"))


def _bonds(
    structure: ExperimentalStructure, complex: Complex, tokenized: TokenizedComplex
) -> list[Bond]:
    """The bonds of a structure between atoms that the network has."""
    names = tokenized.chains.name

    def end(bond_end: BondEnd) -> tuple[str, int, str] | None:
        chain, residue, atom = bond_end
        if chain not in names:
            return None
        row = tokenized.chains.first_residue[names.index(chain)] + residue
        is_known = atom in tokenized.residues.component[int(row)].atom_names
        return (chain, residue + 1, atom) if is_known else None

    found = []
    for first, second in structure.bonds:
        ends = (end(first), end(second))
        if ends[0] is not None and ends[1] is not None:
            found.append(Bond(ends[0], ends[1]))
    return found
