"""Symmetries of a crop: copies of chains, also those outside it, and symmetric atoms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, permutations, product

import numpy as np
import torch
from jaxtyping import Int

from foldcp.chemistry.symmetries import symmetries
from foldcp.features.tokens import TokenizedComplex
from foldcp.training.data.complexes import TokenizedStructure
from foldcp.training.example import ChainSwap, Symmetries

# (chain, chain that it takes the coordinates of)
_Assignment = tuple[tuple[int, int], ...]


def symmetries_of(
    structure: TokenizedStructure,
    atoms: Int[np.ndarray, " R"],
    max_assignments: int,
    rng: np.random.Generator,
) -> Symmetries:
    """The symmetries of the atoms of a crop, which ascend and are whole residues.

    Where chains have more assignments than `max_assignments`, these are the file's own and random
    ones.
    """
    tokenized = structure.tokenized
    return Symmetries(
        coords=torch.from_numpy(structure.coords),
        resolved=torch.from_numpy(structure.resolved),
        atoms=torch.from_numpy(atoms),
        chains=_chain_swaps(tokenized, atoms, max_assignments, rng),
        residues=_residue_symmetries(tokenized, atoms),
    )


def _chain_swaps(
    tokenized: TokenizedComplex,
    atoms: Int[np.ndarray, " R"],
    max_assignments: int,
    rng: np.random.Generator,
) -> list[list[ChainSwap]]:
    """The assignments of the crop's chains to copies of them, the file's own first."""
    entity = tokenized.chains.entity
    first_atom = tokenized.residues.first_atom[tokenized.chains.first_residue]
    in_crop = np.unique(np.searchsorted(first_atom, atoms, side="right") - 1)
    of_entities = []
    # Polymers come last, so that their assignments vary fastest.
    is_ligand = [tokenized.chains.kind[chain] == "ligand" for chain in in_crop]
    for ligands in (True, False):
        chains = in_crop[np.array(is_ligand) == ligands]
        for number in np.unique(entity[chains]):
            own = chains[entity[chains] == number].tolist()
            copies = np.flatnonzero(entity == number).tolist()
            of_entities.append(_assignments(own, copies, max_assignments, rng))
    combined = islice(product(*of_entities), max_assignments)
    return [
        [
            (int(first_atom[chain]), int(first_atom[chain + 1]), int(first_atom[other]))
            for assignment in assignments
            for chain, other in assignment
        ]
        for assignments in combined
    ]


def _assignments(
    own: Sequence[int], copies: Sequence[int], most: int, rng: np.random.Generator
) -> list[_Assignment]:
    """Different copies for each of a crop's chains of one entity: all ways, or random ones, the
    identity first.
    """
    identity = tuple(zip(own, own, strict=True))
    found = [identity]
    for others in _orders(copies, len(own), most, rng):
        assignment = tuple(zip(own, others, strict=True))
        if assignment != identity:
            found.append(assignment)
    return found[:most]


def _orders(
    copies: Sequence[int], length: int, most: int, rng: np.random.Generator
) -> Iterator[tuple[int, ...]]:
    """Arrangements of `length` of the copies: all of them where they are not too many, else as
    many random ones as that.
    """
    num_orders = 1
    for i in range(length):
        num_orders *= len(copies) - i
    if num_orders <= most:
        yield from permutations(copies, length)
        return
    for _ in range(most):
        yield tuple(rng.permutation(copies)[:length].tolist())


def _residue_symmetries(
    tokenized: TokenizedComplex, atoms: Int[np.ndarray, " R"]
) -> list[list[Int[np.ndarray, "n 2"]]]:
    """The symmetries of each residue and ligand component of the crop, in its numbers of atoms."""
    residues, first = np.unique(tokenized.atoms.residue[atoms], return_index=True)
    found = []
    for residue, start in zip(residues.tolist(), first.tolist(), strict=True):
        pairs = symmetries(tokenized.residues.component[residue])
        if pairs:
            found.append([each + start for each in pairs])
    return found
