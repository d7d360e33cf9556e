"""What do the updates of the pair representation share: LayerNorm in fp32, an addition in place,
parts joined?
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.dispatch import fused

EPSILON = 1e-5  # of every LayerNorm here
MAX_CHANNELS = 256  # of z: the kernels hold a tile of pairs with all its channels on chip


def fits(z: Float[Tensor, "*B C"], weight: Float[Tensor, "K C2"]) -> bool:
    """Is the update of z with such weights one for the fused kernels? Wider arrays are few
    tokens, not pairs.
    """
    return z.shape[-1] <= MAX_CHANNELS and fused(z.device, weight.dtype)


def layer_norm(
    x: Float[Tensor, "*B C"], weight: Float[Tensor, " C"], bias: Float[Tensor, " C"]
) -> Float[Tensor, "*B C"]:
    """LayerNorm over the last dimension; statistics and result in fp32, or in fp64 for an fp64
    input.
    """
    x = x if x.dtype == torch.float64 else x.float()
    return F.layer_norm(x, x.shape[-1:], weight.to(x.dtype), bias.to(x.dtype), eps=EPSILON)


def needs_no_grad(*tensors: Tensor) -> bool:
    """May a residual be updated in place, because none of these tensors wants a gradient?"""
    return not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))


def add(z: Float[Tensor, "*B"], update: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """z + update in the type of z; in place where no gradient is wanted."""
    return z.add_(update) if needs_no_grad(z, update) else z + update.to(z.dtype)


def cat_parts(parts: list[Tensor], dim: int = 0) -> Tensor:
    """The parts of an array put together, without a copy where there is one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
