"""Truth for features that have none: coordinates, what of them is resolved, and what Boltz's
featurizer makes of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch
from boltz.data import const
from boltz.model.layers.confidence_utils import compute_frame_pred
from torch import Tensor
from torch.nn.functional import one_hot

LIGAND = const.chain_type_ids["NONPOLYMER"]


@contextmanager
def exact_distances() -> Iterator[None]:
    """Distances from differences, not from products of matrices, whose rounding moves some over the
    edge of a bin.
    """
    mode = "donot_use_mm_for_euclid_dist"
    with patch.object(torch, "cdist", partial(torch.cdist, compute_mode=mode)):
        yield


def with_truth(feats: dict[str, Tensor], seed: int, dtype: torch.dtype = torch.float32) -> dict:
    """The features with a random walk as the structure; a tenth of its atoms are missing."""
    generator = torch.Generator().manual_seed(seed)
    mask = feats["atom_pad_mask"].to(dtype)
    A = mask.shape[1]
    steps = torch.randn((1, A, 3), generator=generator, dtype=torch.float64)
    resolved = (torch.rand((1, A), generator=generator) > 0.1) * mask
    bfactor = torch.rand((1, A), generator=generator) * 130 * (torch.arange(A) % 7 > 0) * mask
    coords = (steps * 1.2).cumsum(1).to(dtype)
    return {**feats, **labels(feats, coords, resolved, bfactor)}


def labels(
    feats: dict[str, Tensor], coords: Tensor, resolved: Tensor, bfactor: Tensor
) -> dict[str, Tensor]:
    """What the featurizer makes of coordinates [1, A, 3] and of what is resolved [1, A]."""
    center = (coords * resolved[..., None]).sum(1) / resolved.sum()
    coords = (coords - center) * resolved[..., None]
    rep = feats["token_to_rep_atom"][0].argmax(-1)
    points = coords[0, rep].double()
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    bounds = torch.linspace(2.0, 22.0, 63)
    bins = (distance[..., None] > bounds).sum(-1)
    centers = feats["token_to_center_atom"][0].argmax(-1)
    is_polymer = (feats["mol_type"][0] != LIGAND) & (feats["token_pad_mask"][0] > 0)
    chosen = centers[is_polymer & (resolved[0, centers] > 0)]
    frames, valid = true_frames(feats, coords, resolved)
    return {
        "coords": coords[:, None],
        "atom_resolved_mask": resolved,
        "bfactor": bfactor.to(coords),
        "disto_target": one_hot(bins, 64)[None, :, :, None].to(coords),
        "token_disto_mask": resolved[:, rep] * feats["token_pad_mask"],
        "r_set_to_rep_atom": one_hot(chosen, coords.shape[1])[None],
        "frames_idx": frames,
        "frame_resolved_mask": valid,
    }


def true_frames(
    feats: dict[str, Tensor], coords: Tensor, resolved: Tensor
) -> tuple[Tensor, Tensor]:
    """Frames [1, 1, N, 3] and whether all their atoms are resolved and they span a plane."""
    given = feats["frames_idx"].reshape(1, -1, 3)
    frames, spans = compute_frame_pred(coords, given, feats, 1, resolved_mask=resolved)
    known = resolved[0][frames[0, 0]].prod(-1) > 0
    return frames, known[None, None] & (spans > 0)
