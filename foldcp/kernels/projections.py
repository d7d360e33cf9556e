"""How do the pair updates enter and leave triangle attention: projections before, gate and
residual after?
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import residual_with_reference_backward, with_reference_backward
from foldcp.kernels.residual import add, cat_parts, fits, layer_norm, needs_no_grad


def project(
    z: Float[Tensor, "*B C"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    weight: Float[Tensor, "K C"],
) -> Float[Tensor, "*B K"]:
    """weight LayerNorm(z), in the type of weight; several projections in one pass over z by stacked
    weights.

    Source: AlphaFold 3, algorithm 14, lines 1 and 2.
    """
    if not fits(z, weight):
        return project_reference(z, norm_w, norm_b, weight)
    from foldcp.kernels import project_triton

    return with_reference_backward(
        project_triton.project, project_reference, z, norm_w, norm_b, weight
    )


def project_reference(
    z: Float[Tensor, "*B C"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    weight: Float[Tensor, "K C"],
) -> Float[Tensor, "*B K"]:
    """The same in torch."""
    return F.linear(layer_norm(z, norm_w, norm_b).to(weight.dtype), weight)


def project_attention(
    parts: list[Float[Tensor, "R J C"]],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    weight: Float[Tensor, "K C"],
    num_heads: int,
) -> tuple[Float[Tensor, "R N H D"], Float[Tensor, "R N H D"], Float[Tensor, "R N H D"]]:
    """q, k and v of triangle attention, whose weights are stacked in `weight`, for rows of z that
    come in parts, N columns in all.

    Where no gradient is wanted, v comes in fp16, as the kernels of attention weigh it.
    """
    inner = len(weight) // 3
    if fits(parts[0], weight) and needs_no_grad(*parts, norm_w, norm_b, weight) and inner % 32 == 0:
        from foldcp.kernels import project_triton

        out = project_triton.project_parts(parts, norm_w, norm_b, weight, half_from=2 * inner)
        q, k, v = out.unflatten(-1, (3, num_heads, -1)).unbind(-3)
        return q, k, v.view(torch.float16)
    q, k, v = (
        project(cat_parts(parts, 1), norm_w, norm_b, weight)
        .unflatten(-1, (3, num_heads, -1))
        .unbind(-3)
    )
    return q, k, v


def project_channels_first(
    z: Float[Tensor, "I N C"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    weight: Float[Tensor, "K C"],
) -> Float[Tensor, "K I N"]:
    """The same with the channels first, as the biases of attention want it: one N-long line per
    channel and row.

    Source: AlphaFold 3, algorithm 14, line 3.
    """
    if not fits(z, weight):
        return project_channels_first_reference(z, norm_w, norm_b, weight)
    from foldcp.kernels import project_triton

    kernel = project_triton.project_channels_first
    return with_reference_backward(
        kernel, project_channels_first_reference, z, norm_w, norm_b, weight
    )


def project_channels_first_reference(
    z: Float[Tensor, "I N C"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    weight: Float[Tensor, "K C"],
) -> Float[Tensor, "K I N"]:
    """The same in torch."""
    return project_reference(z, norm_w, norm_b, weight).movedim(-1, 0).contiguous()


def add_attention_output(
    z: Float[Tensor, "*B C"],
    out: Float[Tensor, "*B K"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    gate_w: Float[Tensor, "K C"],
    out_w: Float[Tensor, "C K"],
) -> Float[Tensor, "*B C"]:
    """z + out_w (out * sigmoid(gate_w LayerNorm(z))); in place where no gradient is wanted.

    `out` is what attention gave, its heads side by side. Source: AlphaFold 3, algorithm 14, lines 4
    to 7, and the residual of algorithm 17.
    """
    if not fits(z, out_w):
        return add_attention_output_reference(z, out, norm_w, norm_b, gate_w, out_w)
    from foldcp.kernels import pair_triton

    return residual_with_reference_backward(
        pair_triton.add_attention_output,
        add_attention_output_reference,
        z,
        out,
        norm_w,
        norm_b,
        gate_w,
        out_w,
    )


def add_attention_output_reference(
    z: Float[Tensor, "*B C"],
    out: Float[Tensor, "*B K"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    gate_w: Float[Tensor, "K C"],
    out_w: Float[Tensor, "C K"],
) -> Float[Tensor, "*B C"]:
    """The same in torch."""
    gate = F.linear(layer_norm(z, norm_w, norm_b).to(gate_w.dtype), gate_w).sigmoid()
    return add(z, F.linear(out.to(out_w.dtype) * gate, out_w))
