"""Crops: the tokens of a structure that an example has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from foldcp.features.tokens import TokenizedComplex

INTERFACE_CUTOFF = 15.0  # Å between the centres of tokens (Boltz: `interface_cutoff`)
INTERFACE_MARGIN = 5.0  # Å more, where no two tokens are within the cutoff
MIN_RESOLVED = 4  # tokens of a contiguous crop


@dataclass(frozen=True, eq=False)
class CropTokens:
    """What crops are made of: T tokens in the order of the complex.

    A unit is what a crop takes as a whole: a residue of a polymer, or a component of a ligand. The
    centre of a token is its CA, C1' or atom.
    """

    chain: Int[np.ndarray, " T"]
    unit: Int[np.ndarray, " T"]  # number within the chain
    num_atoms: Int[np.ndarray, " T"]
    center: Float[np.ndarray, "T 3"]  # Å
    resolved: Bool[np.ndarray, " T"]

    @staticmethod
    def of(
        tokenized: TokenizedComplex,
        coords: Float[np.ndarray, "A 3"],
        resolved: Float[np.ndarray, " A"],
    ) -> CropTokens:
        """The tokens of a structure."""
        residue = tokenized.tokens.residue
        component = tokenized.residues.component
        centers = np.array([component[i].center for i in residue.tolist()])
        atom = tokenized.tokens.first_atom + centers
        return CropTokens(
            chain=tokenized.token_chain,
            unit=tokenized.token_number,
            num_atoms=np.diff(np.append(tokenized.tokens.first_atom, len(coords))),
            center=coords[atom].astype(np.float64),
            resolved=resolved[atom] > 0,
        )


@dataclass(frozen=True)
class CropLimits:
    """The most tokens and atoms of a crop; None for no limit."""

    tokens: int | None
    atoms: int | None

    def allow(self, num_tokens: int, num_atoms: int) -> bool:
        """Whether a crop may have so many."""
        fits = self.tokens is None or num_tokens <= self.tokens
        return fits and (self.atoms is None or num_atoms <= self.atoms)


def spatial_crop(
    tokens: CropTokens,
    limits: CropLimits,
    chains: Sequence[int],
    neighborhood: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, " n"]:
    """The tokens nearest to a random one of some chains, ascending.

    Each is taken with its neighbours along the chain, `neighborhood` tokens in all. Raises
    ValueError where no token is resolved. Source: Boltz, `BoltzCropper`.
    """
    own = np.flatnonzero(tokens.resolved & np.isin(tokens.chain, chains))
    return crop_around(tokens, limits, int(rng.choice(_or_all(own, tokens))), neighborhood)


def interface_crop(
    tokens: CropTokens,
    limits: CropLimits,
    pair: tuple[int, int],
    neighborhood: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, " n"]:
    """The tokens nearest to a random one at the interface of two chains, as `spatial_crop`."""
    sides = [np.flatnonzero(tokens.resolved & (tokens.chain == chain)) for chain in pair]
    candidates = np.concatenate(sides)
    for cutoff in (INTERFACE_CUTOFF, INTERFACE_CUTOFF + INTERFACE_MARGIN):
        touching = _touching(tokens, sides[0], sides[1], cutoff)
        if len(touching):
            candidates = touching
            break
    return crop_around(tokens, limits, int(rng.choice(_or_all(candidates, tokens))), neighborhood)


def contiguous_crop(
    tokens: CropTokens, limits: CropLimits, chains: Sequence[int], rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """A stretch of random length and place of each chain, those of `chains` first, until the crop
    is full; ascending. Source: AlphaFold-Multimer, algorithm 1.

    Where fewer than `MIN_RESOLVED` tokens of it are resolved, it is a spatial crop.
    """
    lengths = np.bincount(tokens.chain)
    order = rng.permutation(len(lengths))
    order = np.concatenate([order[np.isin(order, chains)], order[~np.isin(order, chains)]])
    budget = limits.tokens if limits.tokens is not None else len(tokens.chain)
    taken: list[Int[np.ndarray, " m"]] = []
    num_tokens = 0
    num_atoms = 0
    left = len(tokens.chain)
    for chain in order.tolist():
        of_chain = np.flatnonzero(tokens.chain == chain)
        left -= len(of_chain)
        largest = min(budget - num_tokens, len(of_chain))
        least = min(len(of_chain), max(1, budget - num_tokens - left))
        if largest < 1:
            break
        size = int(rng.integers(min(least, largest), largest + 1))
        start = int(rng.integers(0, len(of_chain) - size + 1))
        for unit in _units(tokens, of_chain[start : start + size]):
            atoms = int(tokens.num_atoms[unit].sum())
            if not limits.allow(num_tokens + len(unit), num_atoms + atoms):
                break
            taken.append(unit)
            num_tokens += len(unit)
            num_atoms += atoms
    crop = np.sort(np.concatenate(taken)) if taken else np.zeros(0, dtype=np.int64)
    needed = min(MIN_RESOLVED, int(tokens.resolved.sum()))
    if tokens.resolved[crop].sum() < needed:
        return spatial_crop(tokens, limits, chains, 0, rng)
    return crop


def _touching(
    tokens: CropTokens,
    first: Int[np.ndarray, " n"],
    second: Int[np.ndarray, " m"],
    cutoff: float,
) -> Int[np.ndarray, " k"]:
    """The tokens of either side with one of the other within the cutoff."""
    if not len(first) or not len(second):
        return np.zeros(0, dtype=np.int64)
    found = []
    for side, other in ((first, second), (second, first)):
        tree = KDTree(tokens.center[other])
        distances, _ = tree.query(tokens.center[side], distance_upper_bound=cutoff)
        found.append(side[np.isfinite(distances)])
    return np.concatenate(found)


def _or_all(candidates: Int[np.ndarray, " n"], tokens: CropTokens) -> Int[np.ndarray, " m"]:
    """The candidates, or all resolved tokens where there are none."""
    if len(candidates):
        return candidates
    found = np.flatnonzero(tokens.resolved)
    if not len(found):
        raise ValueError("no token of the structure has its centre resolved")
    return found


def _units(tokens: CropTokens, some: Int[np.ndarray, " n"]) -> Iterator[Int[np.ndarray, " m"]]:
    """The whole units that have one of some tokens of a chain, in order."""
    of_chain = np.flatnonzero(tokens.chain == tokens.chain[some[0]])
    units = tokens.unit[of_chain]
    for unit in np.unique(tokens.unit[some]):
        yield of_chain[units == unit]


def crop_around(
    tokens: CropTokens, limits: CropLimits, query: int, neighborhood: int
) -> Int[np.ndarray, " n"]:
    """The tokens nearest to one, with their neighbours, until the crop is full."""
    resolved = np.flatnonzero(tokens.resolved)
    distances = np.linalg.norm(tokens.center[resolved] - tokens.center[query], axis=1)
    is_taken = np.zeros(len(tokens.chain), dtype=bool)
    num_tokens = 0
    num_atoms = 0
    for token in resolved[np.argsort(distances, kind="stable")].tolist():
        added = _neighborhood(tokens, token, neighborhood)
        added = added[~is_taken[added]]
        atoms = int(tokens.num_atoms[added].sum())
        if not limits.allow(num_tokens + len(added), num_atoms + atoms):
            break
        is_taken[added] = True
        num_tokens += len(added)
        num_atoms += atoms
    if not num_tokens:
        raise ValueError(
            f"a crop of at most {limits.tokens} tokens and {limits.atoms} atoms has no room for "
            "one residue with its neighbours; make crop_tokens larger or max_neighborhood smaller"
        )
    return np.flatnonzero(is_taken)


def _neighborhood(tokens: CropTokens, token: int, size: int) -> Int[np.ndarray, " n"]:
    """A token's unit with those around it, at least `size` tokens of its chain."""
    chain = tokens.chain[token]
    first = int(tokens.chain.searchsorted(chain))
    last = int(tokens.chain.searchsorted(chain + 1))
    length = last - first
    if length <= size:
        return np.arange(first, last)
    unit = int(tokens.unit[token])
    if tokens.unit[last - 1] == length - 1:  # every unit is one token
        reach = max(size // 2, size - 1 - unit, size - (length - unit))
        return np.arange(first + max(0, unit - reach), first + min(length, unit + reach + 1))
    units = tokens.unit[first:last]
    reach = 0
    while True:
        start = int(units.searchsorted(unit - reach))
        stop = int(units.searchsorted(unit + reach + 1))
        if stop - start >= size:
            return np.arange(first + start, first + stop)
        reach += 1
