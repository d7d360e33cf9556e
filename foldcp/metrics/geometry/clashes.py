"""Clashes of atoms, as AlphaFold 3 and Chai-1 count them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from foldcp.metrics.geometry.atoms import (
    MAX_CLASHING_NEIGHBOURS,
    AtomPairs,
    NearPairs,
    StructureAtoms,
    near_pairs,
)

CLASH_DISTANCE = 1.1  # Å
MAX_CLASHING_ATOMS = 100  # of a chain, AlphaFold 3
MAX_CLASHING_SHARE = 0.5


@dataclass(frozen=True)
class Clashes:
    """Clashes of a structure; NaN where atoms lie on top of one another everywhere.

    `atoms` [a, b] are the atoms of polymer a at most 1.1 Å from an atom of polymer b (AlphaFold 3),
    `pairs` the pairs of atoms of a and b nearer than 1.1 Å (Chai-1). `has_clash` is AlphaFold 3's:
    more than 100 atoms or half of the atoms of a polymer are at most 1.1 Å from an atom of a
    polymer, in another chain or more than one residue away.
    """

    has_clash: bool
    atoms: Float[np.ndarray, "C C"]
    pairs: Float[np.ndarray, "C C"]


def clashes(
    atoms: StructureAtoms, near: NearPairs | None = None, device: torch.device | str = "cpu"
) -> Clashes | None:
    """The clashes of a structure (AlphaFold 3, `has_clash`; Chai-1, `ranking/clashes.py`); None if
    a coordinate is not finite. `near` are all pairs within a larger distance, where known.
    """
    C = atoms.num_chains
    close = _clashing_pairs(atoms, near, device)
    if close is None:
        if not np.isfinite(atoms.coords).all():
            return None
        unknown = np.full((C, C), np.nan)
        return Clashes(True, unknown, unknown)
    close = close.both_ways()
    chain = atoms.chain
    interchain = chain[close.first] != chain[close.second]
    strict = close.where(interchain & (close.distance < CLASH_DISTANCE))
    pairs = atoms.pair_counts(strict.first, strict.second)

    polymer = atoms.of_kinds("protein", "dna", "rna")
    polymers = close.where(polymer[close.first] & polymer[close.second])
    other = chain[polymers.first] != chain[polymers.second]
    clashing = np.zeros((len(chain), C), dtype=bool)
    clashing[polymers.first[other], chain[polymers.second[other]]] = True
    by_pair = np.stack([clashing[chain == c].sum(0) for c in range(C)])

    residues_apart = np.abs(atoms.residue[polymers.first] - atoms.residue[polymers.second])
    counts = np.zeros(len(chain), dtype=bool)
    counts[polymers.first[other | (residues_apart > 1)]] = True
    num_clashing = np.bincount(chain[counts], minlength=C)
    share = num_clashing / np.bincount(chain, minlength=C)
    has_clash = (num_clashing > MAX_CLASHING_ATOMS) | (share > MAX_CLASHING_SHARE)
    return Clashes(bool(has_clash.any()), by_pair.astype(float), pairs.astype(float))


def _clashing_pairs(
    atoms: StructureAtoms, near: NearPairs | None, device: torch.device | str
) -> AtomPairs | None:
    """The pairs at most 1.1 Å apart; None as `near_pairs`."""
    if near is None:
        near = near_pairs(atoms.coords, CLASH_DISTANCE, MAX_CLASHING_NEIGHBOURS, device)
        return None if near is None else near.on_host()
    close = near.where(near.distance <= CLASH_DISTANCE)
    num_neighbours = 2 * len(close.first) + len(atoms.coords)
    few = num_neighbours <= MAX_CLASHING_NEIGHBOURS * len(atoms.coords)
    return close.on_host() if few else None
