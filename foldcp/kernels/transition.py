"""How does every pair of tokens pass through its own two-layer network, in one read and one
write of z?
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import residual_with_reference_backward
from foldcp.kernels.residual import add, fits, layer_norm


def add_transition(
    z: Float[Tensor, "*B C"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    w1: Float[Tensor, "E C"],
    w2: Float[Tensor, "E C"],
    w3: Float[Tensor, "C E"],
) -> Float[Tensor, "*B C"]:
    """z + w3 (silu(w1 x) * (w2 x)) with x = LayerNorm(z); in place where no gradient is wanted.

    Arithmetic in the type of w1, statistics in fp32. Source: AlphaFold 3, algorithm 11.
    """
    if not fits(z, w1):
        return add_transition_reference(z, norm_w, norm_b, w1, w2, w3)
    from foldcp.kernels import pair_triton

    return residual_with_reference_backward(
        pair_triton.add_transition,
        add_transition_reference,
        z,
        norm_w,
        norm_b,
        w1,
        w2,
        w3,
    )


def add_transition_reference(
    z: Float[Tensor, "*B C"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    w1: Float[Tensor, "E C"],
    w2: Float[Tensor, "E C"],
    w3: Float[Tensor, "C E"],
) -> Float[Tensor, "*B C"]:
    """The same in torch."""
    x = layer_norm(z, norm_w, norm_b).to(w1.dtype)
    return add(z, F.linear(F.silu(F.linear(x, w1)) * F.linear(x, w2), w3))
