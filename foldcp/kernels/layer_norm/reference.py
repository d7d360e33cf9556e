"""LayerNorm in PyTorch, and the epsilon of all of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-5  # of every LayerNorm here


def layer_norm(
    x: Float[Tensor, "*B C"], weight: Float[Tensor, " C"], bias: Float[Tensor, " C"]
) -> Float[Tensor, "*B C"]:
    """LayerNorm over the last dimension; statistics and result in fp32, or in fp64 for an fp64
    input.
    """
    x = x if x.dtype == torch.float64 else x.float()
    return F.layer_norm(x, x.shape[-1:], weight.to(x.dtype), bias.to(x.dtype), eps=EPSILON)
