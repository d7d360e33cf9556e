"""Atoms of different chains that overlap, found in cells: memory O(atoms), whatever the
structure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.model.steering.potentials import Time, unit

# Pairs that are looked at together, about 150 bytes each.
PAIRS_AT_ONCE = 1 << 21

# Half of the columns of cells around a column, so that each pair is met once; the first is the
# column itself.
_COLUMNS = ((0, 0), (0, 1), (1, -1), (1, 0), (1, 1))


def neighbours(
    x: Float[Tensor, "B 3"],
    group: Int[Tensor, " B"],
    cutoff: float,
    pairs_at_once: int = PAIRS_AT_ONCE,
) -> Iterator[tuple[Int[Tensor, " n"], Int[Tensor, " n"]]]:
    """Pairs of points of one group, each once: all that are closer than `cutoff`, and some that are
    not.

    They come in blocks of fewer than `pairs_at_once` plus one point's pairs. A point that is not
    finite is near none.
    """
    finite = x.isfinite().all(1).nonzero()[:, 0]
    if not len(finite):
        return
    x = x[finite]
    group = group[finite]
    # Cells are a little wider than the cutoff, so that rounding loses no pair, and those at the
    # border are empty.
    cell = ((x - x.amin(0)) / (1.001 * cutoff)).floor().long() + 1
    _, ny, nz = (cell.amax(0) + 2).tolist()
    key = ((group * (cell[:, 0].amax() + 2) + cell[:, 0]) * ny + cell[:, 1]) * nz + cell[:, 2]
    key, order = key.sort()
    order = finite[order]
    following = torch.arange(1, len(key) + 1, device=key.device)
    for dx, dy in _COLUMNS:
        beside = key + (dx * ny + dy) * nz
        start = following if dx == dy == 0 else torch.searchsorted(key, beside - 1)
        count = torch.searchsorted(key, beside + 1, right=True) - start
        for first, last in _blocks(count, pairs_at_once):
            i, j = _expand(start[first:last], count[first:last])
            yield order[first + i], order[j]


def _blocks(count: Int[Tensor, " B"], most: int) -> list[tuple[int, int]]:
    """Cuts of the points; the counts within a cut add up to less than `most` and the largest
    count.
    """
    total = count.cumsum(0)
    limits = torch.arange(most, int(total[-1]) + most, most, device=count.device)
    cuts = [0, *torch.searchsorted(total, limits, right=True).tolist()]
    return [(first, last) for first, last in pairwise(cuts) if last > first]


def _expand(
    start: Int[Tensor, " b"], count: Int[Tensor, " b"]
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """(row, each of start[row] .. start[row] + count[row] - 1) for every row."""
    row = torch.arange(len(count), device=count.device).repeat_interleave(count)
    place = torch.arange(len(row), device=count.device) - (count.cumsum(0) - count)[row]
    return row, start[row] + place


class Overlapping(NamedTuple):
    """Pairs (i, j) of atoms of one sample that come too close."""

    sample: Int[Tensor, " n"]
    i: Int[Tensor, " n"]
    j: Int[Tensor, " n"]
    depth: Float[Tensor, " n"]  # Å
    direction: Float[Tensor, "n 3"]  # from j to i


@dataclass(frozen=True, eq=False)
class VDWOverlapPotential:
    """E atoms, which shall keep a share of the sum of their van der Waals radii from those of
    certain other chains.
    """

    atoms: Int[Tensor, " E"]
    radius: Float[Tensor, " E"]  # Å
    chain: Int[Tensor, " E"]
    counts: Bool[Tensor, "C C"]  # whether two chains must not overlap
    share: float
    pairs_at_once: int = PAIRS_AT_ONCE

    def _found(self, x: Float[Tensor, "M A 3"]) -> Iterator[Overlapping]:
        own = x[:, self.atoms]
        num_samples = len(x)
        points = own.flatten(0, 1)
        sample = torch.arange(num_samples, device=x.device).repeat_interleave(len(self.atoms))
        cutoff = 2 * self.share * float(self.radius.max())
        for i, j in neighbours(points, sample, cutoff, self.pairs_at_once):
            a = i % len(self.atoms)
            b = j % len(self.atoms)
            wanted = self.counts[self.chain[a], self.chain[b]]
            i = i[wanted]
            j = j[wanted]
            a = a[wanted]
            b = b[wanted]
            between = points[i] - points[j]
            distance = between.norm(dim=-1)
            depth = (self.radius[a] + self.radius[b]) * self.share - distance
            close = depth > 0
            direction = unit(between[close], distance[close])
            yield Overlapping(
                sample[i[close]],
                self.atoms[a[close]],
                self.atoms[b[close]],
                depth[close],
                direction,
            )

    def energy(self, x: Float[Tensor, "M A 3"], time: Time) -> Float[Tensor, " M"]:
        energy = x.new_zeros(len(x))
        for found in self._found(x):
            energy.index_add_(0, found.sample, found.depth)
        return energy

    def gradient(self, x: Float[Tensor, "M A 3"], time: Time) -> Float[Tensor, "M A 3"]:
        gradient = torch.zeros_like(x)
        flat = gradient.flatten(0, 1)
        for found in self._found(x):
            first = found.sample * x.shape[1]
            flat.index_add_(0, first + found.i, -found.direction).index_add_(
                0, first + found.j, found.direction
            )
        return gradient
