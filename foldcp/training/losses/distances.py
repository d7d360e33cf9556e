"""Distances between points, from their differences: products of matrices lose digits."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def distances(a: Float[Tensor, "*M R 3"], b: Float[Tensor, "*M S 3"]) -> Float[Tensor, "*M R S"]:
    """|a_i - b_j|; the gradient at distance 0 is 0."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
