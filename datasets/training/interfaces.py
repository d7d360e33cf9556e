"""Interfaces of a structure: pairs of chains that touch."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.spatial import KDTree

from foldcp.training.data.structure import ExperimentalStructure

CUTOFF = 5.0  # Å between heavy atoms (Boltz: `atom_interface_cutoff`)


def interfaces(structure: ExperimentalStructure) -> tuple[tuple[int, int], ...]:
    """The pairs of chains with heavy atoms within `CUTOFF`, as ascending numbers of chains."""
    chains = structure.chains
    trees = [KDTree(chain.coords) for chain in chains]
    least = np.array([chain.coords.min(axis=0) for chain in chains])
    largest = np.array([chain.coords.max(axis=0) for chain in chains])
    found = []
    for i, j in combinations(range(len(chains)), 2):
        gap = np.maximum(least[i] - largest[j], least[j] - largest[i])
        if (gap > CUTOFF).any():
            continue
        distances, _ = trees[i].query(chains[j].coords, distance_upper_bound=CUTOFF)
        if np.isfinite(distances).any():
            found.append((i, j))
    return tuple(found)
