"""Frames of tokens in a structure, and points seen from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.features.features import Features
from foldcp.geometry import distances
from foldcp.training.example import LIGAND

MAX_COSINE = 0.9063  # of the angle of a frame: 25 to 155 degrees
MIN_ARM = 1e-2  # Å


class Frames(NamedTuple):
    """The frame of every token: three atoms, the origin in the middle, and whether they span a
    plane.
    """

    atoms: Int[Tensor, "N 3"]
    valid: Bool[Tensor, " N"]


def frames_of(
    features: Features, coords: Float[Tensor, "A 3"], resolved: Float[Tensor, " A"]
) -> Frames:
    """Frames of a structure, true or predicted.

    Those of a ligand's tokens are the nearest atom of its chain, the atom, and the next nearest,
    among its resolved atoms. Invalid are frames with an angle below 25 degrees or above 155, or an
    arm of at most 0.01 Å. Source: AlphaFold 3, section 4.3.2; Boltz, `compute_frame_pred`.
    """
    atoms = features.frame_atoms.clone()
    for tokens, chain_atoms in _ligands(features):
        points = coords[chain_atoms]
        both = (resolved[chain_atoms, None] * resolved[chain_atoms]) > 0
        far = distances(points, points).masked_fill(~both, torch.inf)
        order = far.argsort(dim=1, stable=True)
        atoms[tokens] = order[:, [1, 0, 2]].to(atoms) + chain_atoms.start
    a, b, c = coords[atoms].unbind(1)
    return Frames(atoms, (features.token_mask > 0) & ~_collinear(b - a, b - c))


def resolved_frames(frames: Frames, resolved: Float[Tensor, " A"]) -> Bool[Tensor, " N"]:
    """Valid frames of the true structure all of whose atoms are resolved."""
    return frames.valid & (resolved[frames.atoms] > 0).all(1)


def _ligands(features: Features) -> list[tuple[slice, slice]]:
    """Tokens and atoms of every ligand of at least three atoms."""
    layout = features.layout
    kinds = features.mol_type[: len(layout.token_chain)].cpu().numpy()
    found = []
    for chain in np.unique(layout.token_chain[kinds == LIGAND]):
        first, last = np.searchsorted(layout.token_chain, [chain, chain + 1])
        start, stop = np.searchsorted(layout.atom_token, [first, last])
        if stop - start >= 3:
            found.append((slice(int(first), int(last)), slice(int(start), int(stop))))
    return found


def _collinear(u: Float[Tensor, "N 3"], v: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:
    norm_u = u.norm(dim=1, keepdim=True)
    norm_v = v.norm(dim=1, keepdim=True)
    cosine = ((u / (norm_u + 1e-6)) * (v / (norm_v + 1e-6))).sum(1)
    short = (norm_u <= MIN_ARM) | (norm_v <= MIN_ARM)
    return (cosine.abs() >= MAX_COSINE) | short[:, 0]


class FrameAxes(NamedTuple):
    """Origins of frames and their axes, the rows of `axes`."""

    origin: Float[Tensor, "N 3"]
    axes: Float[Tensor, "N 3 3"]


def frame_axes(coords: Float[Tensor, "A 3"], frames: Frames) -> FrameAxes:
    """Source: AlphaFold 3, algorithm 29."""
    a, b, c = coords[frames.atoms].unbind(1)
    w1 = _unit(a - b)
    w2 = _unit(c - b)
    e1 = _unit(w1 + w2)
    e2 = _unit(w2 - w1)
    return FrameAxes(b, torch.stack([e1, e2, torch.linalg.cross(e1, e2)], 1))


def _unit(x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    return x / (x.norm(dim=-1, keepdim=True) + 1e-5)


def seen_from(frames: FrameAxes, rows: slice) -> Float[Tensor, "R N 3"]:
    """The origins of all frames, as seen from those of `rows`."""
    offset = frames.origin - frames.origin[rows, None]
    return torch.einsum("rnj,rij->rni", offset, frames.axes[rows])
