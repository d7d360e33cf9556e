"""LayerNorm over the last dimension: PyTorch's own, and in Triton where it is trained on a GPU.

It has no `choose`: the references of other operations, which know of no backend, call it for their
gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import needs_no_grad
from foldcp.kernels.layer_norm.reference import EPSILON
from foldcp.kernels.layer_norm.reference import layer_norm as reference

__all__ = ["EPSILON", "layer_norm"]

MAX_CHANNELS = 1024  # of the kernels, which hold whole rows in registers


def layer_norm(
    x: Float[Tensor, "*B C"], weight: Float[Tensor, " C"], bias: Float[Tensor, " C"]
) -> Float[Tensor, "*B C"]:
    """LayerNorm over the last dimension; statistics and result in fp32, or in fp64 for an fp64
    input. Where a gradient is wanted on a GPU that has Triton, in kernels of our own.
    """
    if (
        x.is_cuda
        and x.dtype != torch.float64
        and x.shape[-1] <= MAX_CHANNELS
        and not needs_no_grad(x, weight, bias)
    ):
        fused = _fused()
        if fused is not None:
            return fused(x, weight, bias)
    return reference(x, weight, bias)


@cache
def _fused() -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
    """LayerNorm in Triton; None where that is not installed."""
    if find_spec("triton") is None:
        return None
    from foldcp.kernels.layer_norm.triton import LayerNormTriton

    return LayerNormTriton.apply
