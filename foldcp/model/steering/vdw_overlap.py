"""Overlap of atoms of different chains, found with a cell list: memory O(atoms), whatever the
structure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.geometry import Coords
from foldcp.model.steering.potentials import Energies, direction_of
from foldcp.model.steering.schedules import Time

MAX_PAIRS = 1 << 21  # of a chunk, about 150 bytes each

# Half of the columns of cells around a column, so that each pair is found once; the first is the
# column itself.
_COLUMNS = ((0, 0), (0, 1), (1, -1), (1, 0), (1, 1))


def neighbours(
    x: Float[Tensor, "B 3"],
    group: Int[Tensor, " B"],
    cutoff: float,
    max_pairs: int = MAX_PAIRS,
) -> Iterator[tuple[Int[Tensor, " n"], Int[Tensor, " n"]]]:
    """Pairs of points of one group, each once: all that are closer than `cutoff`, and some that are
    not.

    They come in chunks of fewer than `max_pairs` plus one point's pairs. A point that is not finite
    is near none.
    """
    finite = x.isfinite().all(1).nonzero()[:, 0]
    if not len(finite):
        return
    x = x[finite]
    group = group[finite]
    # Cells are a little wider than the cutoff, so that rounding loses no pair. Those at the border
    # are empty.
    offset = x - x.amin(0)
    cell = (offset / (1.001 * cutoff)).floor().long() + 1
    _, ny, nz = (cell.amax(0) + 2).tolist()
    nx = cell[:, 0].amax() + 2
    cx, cy, cz = cell.unbind(1)
    key = ((group * nx + cx) * ny + cy) * nz + cz
    key, order = key.sort()
    order = finite[order]
    following = torch.arange(1, len(key) + 1, device=key.device)
    for dx, dy in _COLUMNS:
        neighbour_key = key + (dx * ny + dy) * nz
        own_column = dx == dy == 0
        start = following if own_column else torch.searchsorted(key, neighbour_key - 1)
        count = torch.searchsorted(key, neighbour_key + 1, right=True) - start
        for points in _chunks(count, max_pairs):
            i, j = _expand(start[points], count[points])
            yield order[points.start + i], order[j]


def _chunks(count: Int[Tensor, " B"], max_count: int) -> list[slice]:
    """Slices of the points; the counts in a slice add up to less than `max_count` and the largest
    count.
    """
    total = count.cumsum(0)
    limits = torch.arange(max_count, int(total[-1]) + max_count, max_count, device=count.device)
    edges = [0, *torch.searchsorted(total, limits, right=True).tolist()]
    return [slice(first, last) for first, last in pairwise(edges) if last > first]


def _expand(
    start: Int[Tensor, " b"], count: Int[Tensor, " b"]
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """(row, each of start[row] .. start[row] + count[row] - 1) for every row."""
    row = torch.arange(len(count), device=count.device).repeat_interleave(count)
    first = count.cumsum(0) - count
    index = torch.arange(len(row), device=count.device) - first[row]
    return row, start[row] + index


@dataclass(frozen=True)
class CloseAtoms:
    """Pairs (i, j) of atoms of one sample that come too close."""

    sample: Int[Tensor, " n"]
    i: Int[Tensor, " n"]
    j: Int[Tensor, " n"]
    depth: Float[Tensor, " n"]  # Å
    direction: Float[Tensor, "n 3"]  # from j to i


@dataclass(frozen=True, eq=False)
class VDWOverlapPotential:
    """E atoms, whose distances from those of certain other chains shall be at least the sum of the
    van der Waals radii less a share of it, the buffer.
    """

    atoms: Int[Tensor, " E"]
    radius: Float[Tensor, " E"]  # Å
    chain: Int[Tensor, " E"]
    nonbonded_chains: Bool[Tensor, "C C"]  # whether two chains must not overlap
    buffer: float
    max_pairs: int = MAX_PAIRS

    def energy(self, x: Coords, time: Time) -> Energies:
        energy = x.new_zeros(len(x))
        for overlaps in self._overlaps(x):
            energy.index_add_(0, overlaps.sample, overlaps.depth)
        return energy

    def gradient(self, x: Coords, time: Time) -> Coords:
        gradient = torch.zeros_like(x)
        flat = gradient.flatten(0, 1)
        for overlaps in self._overlaps(x):
            first = overlaps.sample * x.shape[1]
            flat.index_add_(0, first + overlaps.i, -overlaps.direction)
            flat.index_add_(0, first + overlaps.j, overlaps.direction)
        return gradient

    def _overlaps(self, x: Coords) -> Iterator[CloseAtoms]:
        num_atoms = len(self.atoms)
        points = x[:, self.atoms].flatten(0, 1)
        sample = torch.arange(len(x), device=x.device).repeat_interleave(num_atoms)
        share = 1 - self.buffer
        cutoff = 2 * share * float(self.radius.max())
        for i, j in neighbours(points, sample, cutoff, self.max_pairs):
            nonbonded = self.nonbonded_chains[self.chain[i % num_atoms], self.chain[j % num_atoms]]
            i = i[nonbonded]
            j = j[nonbonded]
            a = i % num_atoms
            b = j % num_atoms
            between = points[i] - points[j]
            distance = between.norm(dim=-1)
            depth = (self.radius[a] + self.radius[b]) * share - distance
            close = depth > 0
            yield CloseAtoms(
                sample=sample[i[close]],
                i=self.atoms[a[close]],
                j=self.atoms[b[close]],
                depth=depth[close],
                direction=direction_of(between[close], distance[close]),
            )
