"""The share of each sphere that no neighbour covers; the PyTorch reference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

NUM_POINTS = 400  # on each sphere; DSSP has 401
# Points times neighbours computed at once: on a CPU what its cache holds.
MAX_POINTS = {"cpu": 1 << 19, "cuda": 1 << 24}


@dataclass(frozen=True, eq=False)
class Spheres:
    """Spheres about atoms, each with its neighbours: those of atom i are
    `neighbours[starts[i] : starts[i + 1]]`, and may include some that do not touch it.
    """

    centers: Float[Tensor, "A 3"]  # Å, double precision
    radii: Float[Tensor, " A"]  # Å, double precision
    chain: Int[Tensor, " A"]
    starts: Int[Tensor, " A+1"]
    neighbours: Int[Tensor, " n"]


class ExposedSurface:
    """The share of the points on spheres that lie in no other, after Shrake & Rupley 1973."""

    def __call__(
        self, spheres: Spheres, atoms: Int[Tensor, " w"], others: Int[Tensor, " w"]
    ) -> Float[Tensor, " w"]:
        """The exposed share of each of these atoms' spheres, among neighbours of the atom's own
        chain and of one other, or of its own alone where that is the other.
        """
        if not len(atoms):
            return torch.zeros(0, device=atoms.device)
        most = int((spheres.starts[atoms + 1] - spheres.starts[atoms]).max())
        rows = max(1, MAX_POINTS[atoms.device.type] // (NUM_POINTS * max(1, most)))
        chunks = zip(atoms.split(rows), others.split(rows), strict=True)
        return torch.cat([self._of_chunk(spheres, *chunk) for chunk in chunks])

    def _of_chunk(
        self, spheres: Spheres, atoms: Int[Tensor, " r"], others: Int[Tensor, " r"]
    ) -> Float[Tensor, " r"]:
        first = spheres.starts[atoms, None]
        counts = spheres.starts[atoms + 1, None] - first
        most = int(counts.max())
        if most == 0:
            return torch.ones(len(atoms), device=atoms.device)
        place = torch.arange(most, device=atoms.device)
        inside = place < counts
        neighbour = spheres.neighbours[torch.where(inside, first + place, 0)]
        chain = spheres.chain[neighbour]
        inside &= (chain == spheres.chain[atoms, None]) | (chain == others[:, None])
        # In units of the atom's radius, the point u of its sphere lies in the neighbour's
        # if u . offset > threshold.
        own = spheres.radii[atoms, None]
        offset = (spheres.centers[neighbour] - spheres.centers[atoms, None]) / own[..., None]
        radius = spheres.radii[neighbour] / own
        threshold = (1 + offset.square().sum(-1) - radius.square()) / 2
        needed = threshold.float().masked_fill(~inside, torch.inf)
        points = sphere_points(atoms.device).T.expand(len(atoms), -1, -1)
        depth = torch.baddbmm(-needed[..., None], offset.float(), points)
        return (depth.amax(1) <= 0).float().mean(1)


@cache
def sphere_points(device: torch.device) -> Float[Tensor, "p 3"]:
    """Points spread evenly over the unit sphere, along a spiral of golden angles."""
    number = torch.arange(NUM_POINTS, dtype=torch.float64)
    angle = torch.pi * (3 - 5**0.5) * number
    height = 1 - (2 * number + 1) / NUM_POINTS
    radius = (1 - height.square()).sqrt()
    points = torch.stack([radius * angle.cos(), radius * angle.sin(), height], 1)
    return points.float().to(device)
