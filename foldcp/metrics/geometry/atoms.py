"""The heavy atoms of a predicted structure in host memory, and pairs of them that are near.

There are 70 times as many pairs as atoms, so they stay where they were found, and only the few that
scores look at come to the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree
from torch import Tensor

from foldcp.features.layout import Layout
from foldcp.metrics.geometry.weak_cache import weak_cache

# Å; the largest distance at which two atoms touch the same water molecule, the radii being at most
# 1.9 Å, and more than that of any contact
MAX_CONTACT = 6.6
# Atoms per atom, itself included, within 6.6 Å: 70 in the core of a protein. Beyond this number the
# structure is a heap, whose pairs would not fit into memory.
MAX_NEIGHBOURS = 300
MAX_CLASHING_NEIGHBOURS = 50  # the same within 1.1 Å
MAX_DISTANCES = 1 << 24  # of pairs of atoms at a time, on a GPU


@dataclass(frozen=True, eq=False)
class StructureAtoms:
    """The atoms of one sample, without padding."""

    layout: Layout
    coords: Float[np.ndarray, "A 3"]  # Å, double precision

    @property
    def chain(self) -> Int[np.ndarray, " A"]:
        """Chain of each atom."""
        return _chain(self.layout)

    @cached_property
    def residue(self) -> Int[np.ndarray, " A"]:
        """Number of each atom's residue in its chain."""
        return self.layout.token_residue[self.layout.atom_token]

    @property
    def num_chains(self) -> int:
        """C."""
        return len(self.layout.chain_kinds)

    def of_kinds(self, *kinds: str) -> Bool[np.ndarray, " A"]:
        """A mask of the atoms of chains of these kinds."""
        return np.isin(self.layout.chain_kinds, kinds)[self.chain]

    @cached_property
    def backbone(self) -> Mapping[str, Float[np.ndarray, "T 3"]]:
        """The coordinates in Å of `backbone_atoms`; NaN where there is none."""
        return {
            name: np.where(index[:, None] >= 0, self.coords[index], np.nan)
            for name, index in backbone_atoms(self.layout).items()
        }

    def pair_counts(
        self, first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, "C C"]:
        """Numbers of pairs (atom of a, atom of b) by their chains."""
        C = self.num_chains
        place = self.chain[first] * C + self.chain[second]
        return np.bincount(place, minlength=C * C).reshape(C, C)


@weak_cache
def _chain(layout: Layout) -> Int[np.ndarray, " A"]:
    return layout.token_chain[layout.atom_token]


@weak_cache
def backbone_atoms(layout: Layout) -> Mapping[str, Int[np.ndarray, " T"]]:
    """N, CA, C, O and CB, by name, of each residue of a protein; -1 for other tokens, and for a
    residue without the atom.
    """
    names = np.array(layout.atom_name)
    protein = (np.array(layout.chain_kinds) == "protein")[_chain(layout)]
    atoms = {}
    for name in ("N", "CA", "C", "O", "CB"):
        rows = np.flatnonzero(protein & (names == name))
        atoms[name] = np.full(len(layout.token_chain), -1)
        atoms[name][layout.atom_token[rows]] = rows
    return atoms


@dataclass(frozen=True, eq=False)
class AtomPairs:
    """Pairs of atoms, each once, in host memory."""

    first: Int[np.ndarray, " n"]
    second: Int[np.ndarray, " n"]
    distance: Float[np.ndarray, " n"]  # Å

    def where(self, mask: Bool[np.ndarray, " n"]) -> AtomPairs:
        """Those that a mask names."""
        return AtomPairs(self.first[mask], self.second[mask], self.distance[mask])

    def both_ways(self) -> AtomPairs:
        """Every pair and its reverse."""
        return AtomPairs(
            np.concatenate([self.first, self.second]),
            np.concatenate([self.second, self.first]),
            np.concatenate([self.distance, self.distance]),
        )


@dataclass(frozen=True, eq=False)
class NearPairs:
    """Pairs of atoms, each once, in the memory of a device."""

    first: Int[Tensor, " n"]
    second: Int[Tensor, " n"]
    distance: Float[Tensor, " n"]  # Å

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.first.device

    def where(self, mask: Bool[Tensor, " n"]) -> NearPairs:
        """Those that a mask names."""
        kept = mask.nonzero().squeeze(1)  # once, as it waits for the device
        return NearPairs(self.first[kept], self.second[kept], self.distance[kept])

    def on_host(self) -> AtomPairs:
        """The same in host memory."""
        return AtomPairs(*(x.cpu().numpy() for x in (self.first, self.second, self.distance)))


def near_pairs(
    coords: Float[np.ndarray, "A 3"],
    cutoff: float,
    max_neighbours: int,
    device: torch.device | str = "cpu",
) -> NearPairs | None:
    """The pairs at most `cutoff` Å apart, in order; None where a coordinate is not finite or atoms
    have more neighbours than `max_neighbours` on average, which no structure has.
    """
    if not np.isfinite(coords).all():
        return None
    if torch.device(device).type == "cuda":
        return near_pairs_of_all(coords, cutoff, max_neighbours, device)
    tree = KDTree(coords)
    if tree.count_neighbors(tree, cutoff) > max_neighbours * len(coords):
        return None
    pairs = tree.query_pairs(cutoff, output_type="ndarray")
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    first, second = np.ascontiguousarray(pairs.T)
    distance = np.linalg.norm(coords[first] - coords[second], axis=1)
    return NearPairs(*map(torch.from_numpy, (first, second, distance)))


def near_pairs_of_all(
    coords: Float[np.ndarray, "A 3"],
    cutoff: float,
    max_neighbours: int,
    device: torch.device | str,
) -> NearPairs | None:
    """`near_pairs` of finite coordinates by all distances, which a GPU has faster than a tree.

    Single precision finds all pairs that may be near and a few more, with a third of the traffic.
    """
    A = len(coords)
    points = torch.from_numpy(coords).to(device)
    axes = points.float().T.contiguous()
    rounding = 4 * np.finfo(np.float32).eps * np.abs(coords).max(initial=0.0)
    found: list[tuple[Tensor, Tensor]] = []
    num_neighbours = A
    rows = max(1, MAX_DISTANCES // max(1, A))
    for start in range(0, A, rows):
        # of these atoms and all that come after them
        squared = torch.zeros((), device=device)
        for axis in axes:
            offset = axis[start : start + rows, None] - axis[start:]
            squared = torch.addcmul(squared, offset, offset)
        first, second = (squared <= (cutoff + rounding) ** 2).triu(1).nonzero(as_tuple=True)
        num_neighbours += 2 * len(first)
        if num_neighbours > max_neighbours * A:
            return None
        found.append((first + start, second + start))
    first, second = (torch.cat(parts) for parts in zip(*found, strict=True))
    distance = (points[first] - points[second]).square().sum(1).sqrt()
    return NearPairs(first, second, distance).where(distance <= cutoff)
