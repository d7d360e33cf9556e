"""Layout of a prediction: names of chains, tokens and atoms, and bonds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True, eq=False)
class Layout:
    """Names of chains, tokens and atoms, charges and bonds that structure files and tables need.

    C chains, T tokens and A atoms, without padding. `bonds` are those within residues that are not
    standard, `covalent` those of the input, and those that close cyclic chains.
    """

    chain_names: list[str]  # [C]
    chain_kinds: list[str]  # [C] protein, dna, rna or ligand
    chain_accessions: list[str]  # [C] of UniProt; empty where the input has none
    chain_smiles: list[str]  # [C] of a ligand that was given as one; else empty
    chain_entities: Int[np.ndarray, " C"]  # equal numbers for copies of one molecule
    token_chain: Int[np.ndarray, " T"]  # index of the chain
    token_residue: Int[np.ndarray, " T"]  # residue number within the chain, from 1
    token_name: list[str]  # [T] CCD code of the residue
    atom_token: Int[np.ndarray, " A"]  # index of the token
    atom_name: list[str]  # [A] CCD atom name
    atom_element: Int[np.ndarray, " A"]  # atomic number
    atom_charge: Int[np.ndarray, " A"]  # formal charge
    bonds: Int[np.ndarray, "B 3"]  # (atom, atom, index in BOND_TYPES)
    covalent: Int[np.ndarray, "K 2"]  # (atom, atom)
    chain_msa_depth: Int[np.ndarray, " C"]  # different MSA rows of each chain, query included
    chain_coverage: list[Int[np.ndarray, " _"]]  # [C] those with a residue, not a gap, at each
    # residue of the chain; empty for one without an alignment
