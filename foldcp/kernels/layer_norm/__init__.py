"""LayerNorm over the last dimension: PyTorch's own, or in Triton.

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
    x: Float[Tensor, "*B C"],
    weight: Float[Tensor, " C"],
    bias: Float[Tensor, " C"],
    fused: bool = False,
) -> Float[Tensor, "*B C"]:
    """LayerNorm over the last dimension; statistics and result in fp32, or in fp64 for an fp64
    input. On a GPU in kernels of our own where they are asked for by `fused`, and where a gradient
    is wanted and Triton is installed.
    """
    if (
        x.is_cuda
        and x.dtype != torch.float64
        and x.shape[-1] <= MAX_CHANNELS
        and (fused or not needs_no_grad(x, weight, bias))
    ):
        kernel = _kernel()
        if kernel is not None:
            return kernel(x, weight, bias)
    return reference(x, weight, bias)


@cache
def _kernel() -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
    """LayerNorm in Triton; None where that is not installed."""
    if find_spec("triton") is None:
        return None
    from foldcp.kernels.layer_norm.triton import LayerNormTriton

    return LayerNormTriton.apply
