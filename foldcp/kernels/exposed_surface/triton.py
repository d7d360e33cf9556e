"""The share of each sphere that no neighbour covers, in one kernel for all atoms."""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.kernels.exposed_surface.reference import (
    NUM_POINTS,
    ExposedSurface,
    Spheres,
    sphere_points,
)
from foldcp.kernels.triton_utils import next_power_of_2

NEIGHBOURS_AT_ONCE = 16


@triton.jit
@no_type_check
def _exposed_share(
    CENTERS, RADII, CHAIN, STARTS, NEIGHBOURS, ATOMS, OTHERS, POINTS, OUT,
    P: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
) -> None:  # fmt: skip
    """A program has one atom, and all points of its sphere."""
    item = tl.program_id(0)
    atom = tl.load(ATOMS + item)
    other_chain = tl.load(OTHERS + item)
    own_chain = tl.load(CHAIN + atom)
    own = tl.load(RADII + atom)
    x = tl.load(CENTERS + 3 * atom)
    y = tl.load(CENTERS + 3 * atom + 1)
    z = tl.load(CENTERS + 3 * atom + 2)
    point = tl.arange(0, BP)
    is_point = point < P
    point_x = tl.load(POINTS + 3 * point, mask=is_point, other=0.0)[None, :]
    point_y = tl.load(POINTS + 3 * point + 1, mask=is_point, other=0.0)[None, :]
    point_z = tl.load(POINTS + 3 * point + 2, mask=is_point, other=0.0)[None, :]
    deepest = tl.full([BP], float("-inf"), tl.float32)
    stop = tl.load(STARTS + atom + 1)
    for start in range(tl.load(STARTS + atom), stop, BN):
        place = start + tl.arange(0, BN)
        inside = place < stop
        neighbour = tl.load(NEIGHBOURS + place, mask=inside, other=0)
        chain = tl.load(CHAIN + neighbour)
        inside = inside & ((chain == own_chain) | (chain == other_chain))
        dx = (tl.load(CENTERS + 3 * neighbour) - x) / own
        dy = (tl.load(CENTERS + 3 * neighbour + 1) - y) / own
        dz = (tl.load(CENTERS + 3 * neighbour + 2) - z) / own
        radius = tl.load(RADII + neighbour) / own
        threshold = (1 + dx * dx + dy * dy + dz * dz - radius * radius) / 2
        needed = tl.where(inside, threshold, float("inf")).to(tl.float32)
        depth = dx.to(tl.float32)[:, None] * point_x - needed[:, None]
        depth += dy.to(tl.float32)[:, None] * point_y
        depth += dz.to(tl.float32)[:, None] * point_z
        deepest = tl.maximum(deepest, tl.max(depth, 0))
    is_exposed = is_point & (deepest <= 0)
    tl.store(OUT + item, tl.sum(is_exposed.to(tl.float32), 0) / P)


class ExposedSurfaceTriton(ExposedSurface):
    """All atoms in one launch, without arrays of points."""

    def __call__(
        self, spheres: Spheres, atoms: Int[Tensor, " w"], others: Int[Tensor, " w"]
    ) -> Float[Tensor, " w"]:
        share = torch.empty(len(atoms), device=atoms.device)
        if not len(atoms):
            return share
        _exposed_share[(len(atoms),)](
            spheres.centers.contiguous(),
            spheres.radii,
            spheres.chain,
            spheres.starts,
            spheres.neighbours,
            atoms,
            others,
            sphere_points(atoms.device),
            share,
            P=NUM_POINTS,
            BP=next_power_of_2(NUM_POINTS),
            BN=NEIGHBOURS_AT_ONCE,
        )
        return share
