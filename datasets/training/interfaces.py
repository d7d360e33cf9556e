"""Interfaces of a structure: pairs of chains that touch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.spatial import KDTree

from foldcp.training.data.structure import ExperimentalChain, ExperimentalStructure

CUTOFF = 5.0  # Å between heavy atoms (Boltz: `atom_interface_cutoff`)


def interfaces(structure: ExperimentalStructure) -> tuple[tuple[int, int], ...]:
    """The pairs of chains with heavy atoms within `CUTOFF`, as ascending numbers of chains."""
    chains = structure.chains
    trees = [KDTree(chain.coords) for chain in chains]
    found = []
    for i, j in near_boxes(chains, CUTOFF):
        distances, _ = trees[i].query(chains[j].coords, distance_upper_bound=CUTOFF)
        if np.isfinite(distances).any():
            found.append((i, j))
    return tuple(found)


def near_boxes(chains: Sequence[ExperimentalChain], distance: float) -> Iterator[tuple[int, int]]:
    """The pairs of chains, ascending, whose bounding boxes are within a distance in Å."""
    least = np.array([chain.coords.min(axis=0) for chain in chains])
    largest = np.array([chain.coords.max(axis=0) for chain in chains])
    for i in range(len(chains) - 1):
        gap = np.maximum(least[i] - largest[i + 1 :], least[i + 1 :] - largest[i])
        for j in np.flatnonzero((gap <= distance).all(axis=1)).tolist():
            yield i, i + 1 + j
