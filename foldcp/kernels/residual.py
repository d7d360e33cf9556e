"""Legacy names, until every operation has moved to its folder."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import add_residual as add
from foldcp.kernels.autograd import needs_no_grad
from foldcp.kernels.blocks import cat_blocks as cat_parts
from foldcp.kernels.dispatch import MAX_CHANNELS, fused
from foldcp.kernels.layer_norm import EPSILON, layer_norm

__all__ = ["EPSILON", "add", "cat_parts", "fits", "layer_norm", "needs_no_grad"]


def fits(z: Float[Tensor, "*B C"], weight: Float[Tensor, "K C2"]) -> bool:
    """Legacy: whether an update of z with such weights is one for the fused kernels."""
    return z.shape[-1] <= MAX_CHANNELS and fused(z.device, weight.dtype)
