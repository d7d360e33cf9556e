"""What stands between the matrix products of a conditioned transformer: norms, gates, and additions
to the residual?

A [.., A, C] may be one of many samples; what conditions it, [A, C], is the same for all of them.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import with_reference_backward
from foldcp.kernels.dispatch import chosen, fused
from foldcp.kernels.residual import EPSILON


def modulated_norm(
    a: Float[Tensor, "*M A C"],
    scale: Float[Tensor, "A C"],
    shift: Float[Tensor, "A C"],
    dtype: torch.dtype,
) -> Float[Tensor, "*M A C"]:
    """scale LayerNorm(a) + shift in `dtype`, which is that of the matrix product that follows.

    Source: AlphaFold 3, algorithm 26, line 3.
    """

    if not fused(a.device, dtype):
        return modulated_norm_reference(a, scale, shift, dtype)
    from foldcp.kernels import conditioned_triton

    kernel = partial(conditioned_triton.modulated_norm, dtype=dtype)
    return with_reference_backward(
        kernel, partial(modulated_norm_reference, dtype=dtype), a, scale, shift
    )


def modulated_norm_reference(
    a: Float[Tensor, "*M A C"],
    scale: Float[Tensor, "A C"],
    shift: Float[Tensor, "A C"],
    dtype: torch.dtype,
) -> Float[Tensor, "*M A C"]:
    """The same in torch."""
    precise = torch.promote_types(a.dtype, torch.float32)
    normed = F.layer_norm(a.to(precise), a.shape[-1:], eps=EPSILON)
    return torch.addcmul(shift.to(precise), scale.to(precise), normed).to(dtype)


def add_gated(
    a: Float[Tensor, "*M A C"],
    update: Float[Tensor, "*M A C"],
    gate: Float[Tensor, "A C"],
) -> Float[Tensor, "*M A C"]:
    """a + gate update, in the type of a. Source: AlphaFold 3, algorithm 24, line 13; algorithm
    25, line 4.
    """
    if not fused(a.device, update.dtype):
        return add_gated_reference(a, update, gate)
    from foldcp.kernels import conditioned_triton

    return with_reference_backward(
        conditioned_triton.add_gated, add_gated_reference, a, update, gate
    )


def add_gated_reference(
    a: Float[Tensor, "*M A C"],
    update: Float[Tensor, "*M A C"],
    gate: Float[Tensor, "A C"],
) -> Float[Tensor, "*M A C"]:
    """The same in torch."""
    return torch.addcmul(a, gate.to(a.dtype), update.to(a.dtype))


def gated(x: Float[Tensor, "*M C"], gate: Float[Tensor, "*M C"]) -> Float[Tensor, "*M C"]:
    """x sigmoid(gate). Source: AlphaFold 3, algorithm 24, line 9."""
    if not fused(x.device, x.dtype):
        return gated_reference(x, gate)
    from foldcp.kernels import conditioned_triton

    return with_reference_backward(conditioned_triton.gated, gated_reference, x, gate)


def gated_reference(x: Float[Tensor, "*M C"], gate: Float[Tensor, "*M C"]) -> Float[Tensor, "*M C"]:
    """The same in torch."""
    return x * gate.sigmoid()


def glu(h: Float[Tensor, "*M K"]) -> Float[Tensor, "*M K/3"]:
    """x silu(y) w of the three thirds x, y, w of h. Source: AlphaFold 3, algorithm 25, line 2,
    times Boltz-2's w.
    """
    if not fused(h.device, h.dtype):
        return glu_reference(h)
    from foldcp.kernels import conditioned_triton

    return with_reference_backward(conditioned_triton.glu, glu_reference, h)


def glu_reference(h: Float[Tensor, "*M K"]) -> Float[Tensor, "*M K/3"]:
    """The same in torch."""
    x, y, w = h.chunk(3, -1)
    return F.silu(y) * x * w


def split(weight: Float[Tensor, "K C"]) -> Float[Tensor, "2 K C"]:
    """Two bf16 matrices whose sum is the fp32 one up to 2^-17 of each entry."""
    high = weight.bfloat16()
    return torch.stack([high, (weight - high.float()).bfloat16()])


def add_split_transition(
    a: Float[Tensor, "*M A C"],
    scale: Float[Tensor, "A C"],
    shift: Float[Tensor, "A C"],
    gate: Float[Tensor, "A C"],
    widen: Float[Tensor, "2 K C"],
    back: Float[Tensor, "2 C K/3"],
) -> Float[Tensor, "*M A C"]:
    """a + gate back glu(widen (scale LayerNorm(a) + shift)) for few channels, in one pass over a.

    The weights are `split`, and so is what they multiply: of (x1 + x2) (w1 + w2) in bf16 only x2
    w2, about 2^-16 of it, is left out. Source: AlphaFold 3, algorithm 25; Ootomo and Yokota 2022
    for the splitting.
    """
    operands = (a, scale, shift, gate, widen, back)
    if chosen(a.device) != "triton" or a.shape[-1] > SPLIT_CHANNELS:
        return add_split_transition_reference(*operands)
    from foldcp.kernels import conditioned_triton

    return with_reference_backward(
        conditioned_triton.add_split_transition,
        add_split_transition_reference,
        *operands,
    )


SPLIT_CHANNELS = 128  # a program holds whole atoms, twice


def add_split_transition_reference(
    a: Float[Tensor, "*M A C"],
    scale: Float[Tensor, "A C"],
    shift: Float[Tensor, "A C"],
    gate: Float[Tensor, "A C"],
    widen: Float[Tensor, "2 K C"],
    back: Float[Tensor, "2 C K/3"],
) -> Float[Tensor, "*M A C"]:
    """The same in torch, in the type of a."""
    widen, back = (weight.to(a.dtype).sum(0) for weight in (widen, back))
    x = modulated_norm_reference(a, scale, shift, a.dtype)
    return add_gated_reference(a, F.linear(glu_reference(F.linear(x, widen)), back), gate)
