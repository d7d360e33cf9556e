"""Valid frames: tokens whose predicted error may be trusted, as their frame is defined."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from foldcp.features.features import Features
from foldcp.geometry import distances
from foldcp.metrics.chains import ChainSpans

MAX_COSINE = 0.9063  # of the angle of a frame: 25 to 155 degrees
MIN_ARM = 1e-2  # Å


def valid_frames(
    features: Features, coords: Float[Tensor, "A 3"], spans: ChainSpans
) -> Bool[Tensor, " N"]:
    """Tokens whose three frame atoms span a plane in the predicted structure (Boltz,
    `compute_frame_pred`).

    A ligand's frames are rebuilt from the prediction: the nearest atom of its chain, the atom, the
    next nearest; one of fewer than three atoms has none. Invalid are frames with an angle below 25
    degrees or above 155 (|cos| >= 0.9063), or with an arm of at most 0.01 Å. `coords` are in Å.
    """
    frames = features.frame_atoms.clone()
    valid = features.token_mask > 0
    for chain in np.flatnonzero(spans.mask("ligand")):
        tokens = slice(spans.starts[chain], spans.starts[chain + 1])
        edges = np.searchsorted(features.layout.atom_token, (tokens.start, tokens.stop))
        first = int(edges[0])
        last = int(edges[1])
        assert last - first == tokens.stop - tokens.start, "a ligand has one token per atom"
        if last - first < 3:
            valid[tokens] = False
            continue
        atoms = coords[first:last]
        distance = distances(atoms, atoms)
        order = distance.argsort(dim=1, stable=True)
        nearest = order[:, [1, 0, 2]]
        frames[tokens] = nearest.to(frames.dtype) + first
    corners = coords.float()[frames]
    a, b, c = corners.unbind(1)
    return valid & ~_collinear(b - a, b - c)


def _collinear(u: Float[Tensor, "N 3"], v: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:
    """Boltz's `compute_collinear_mask`, negated."""
    norm_u = u.norm(dim=1)
    norm_v = v.norm(dim=1)
    unit_u = u / (norm_u + 1e-6)[:, None]
    unit_v = v / (norm_v + 1e-6)[:, None]
    cosine = (unit_u * unit_v).sum(1)
    too_short = (norm_u <= MIN_ARM) | (norm_v <= MIN_ARM)
    return (cosine.abs() >= MAX_COSINE) | too_short
