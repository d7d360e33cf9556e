"""Distances between points, from their differences: products of matrices lose digits."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def distances(a: Float[Tensor, "*M R 3"], b: Float[Tensor, "*M S 3"]) -> Float[Tensor, "*M R S"]:
    """|a_i - b_j|, without gradients.

    `torch.cdist` has a block of threads for every pair of points, which is slow for three numbers.
    """
    squared = a.new_zeros(())
    for x, y in zip(a.unbind(-1), b.unbind(-1), strict=True):
        squared = (x[..., :, None] - y[..., None, :]).square_() + squared
    return squared.sqrt_()
