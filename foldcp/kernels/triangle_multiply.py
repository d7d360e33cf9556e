"""What surrounds the matrix product of a triangle multiplication: gated projections before,
gated output after?
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import residual_with_reference_backward, with_reference_backward
from foldcp.kernels.residual import add, fits, layer_norm


def gated_projection(
    z: Float[Tensor, "I N C"],
    mask: Float[Tensor, " N"] | Float[Tensor, "I 1"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    p_in: Float[Tensor, "K C"],
    g_in: Float[Tensor, "K C"],
) -> Float[Tensor, "K I N"]:
    """(p_in x) sigmoid(g_in x) mask with x = LayerNorm(z), channels first, in the type of p_in.

    `mask` is 1 at tokens and 0 at padding, of columns [N] or of rows [I, 1], whichever the product
    sums over. Any subset of the output channels may be asked for by passing those rows of p_in and
    g_in. Source: AlphaFold 3, algorithms 12 and 13, lines 1 and 2.
    """
    if not fits(z, p_in):
        return gated_projection_reference(z, mask, norm_w, norm_b, p_in, g_in)
    from foldcp.kernels.project_triton import project_channels_first

    def kernel(
        z: Tensor,
        mask: Tensor,
        norm_w: Tensor,
        norm_b: Tensor,
        p_in: Tensor,
        g_in: Tensor,
    ) -> Tensor:
        return project_channels_first(z, norm_w, norm_b, p_in, gate=(g_in, mask))

    return with_reference_backward(
        kernel, gated_projection_reference, z, mask, norm_w, norm_b, p_in, g_in
    )


def gated_projection_reference(
    z: Float[Tensor, "I N C"],
    mask: Float[Tensor, " N"] | Float[Tensor, "I 1"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    p_in: Float[Tensor, "K C"],
    g_in: Float[Tensor, "K C"],
) -> Float[Tensor, "K I N"]:
    """The same in torch."""
    x = layer_norm(z, norm_w, norm_b).to(p_in.dtype)
    gated = F.linear(x, p_in) * F.linear(x, g_in).sigmoid() * mask[..., None].to(p_in.dtype)
    return gated.permute(2, 0, 1).contiguous()


def add_gated_output(
    z: Float[Tensor, "I N C"],
    product: Float[Tensor, "K I N"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    norm_out_w: Float[Tensor, " K"],
    norm_out_b: Float[Tensor, " K"],
    p_out: Float[Tensor, "C K"],
    g_out: Float[Tensor, "C C"],
) -> Float[Tensor, "I N C"]:
    """z + p_out(LayerNorm_out(product)) sigmoid(g_out LayerNorm(z)); in place where no gradient is
    wanted.

    `product` has its channels first; arithmetic in the type of p_out, statistics in fp32. Source:
    AlphaFold 3, algorithms 12 and 13, lines 3 and 4, and the residual of algorithm 17.
    """
    tensors = (product, norm_w, norm_b, norm_out_w, norm_out_b, p_out, g_out)
    if not fits(z, p_out):
        return add_gated_output_reference(z, *tensors)
    from foldcp.kernels import pair_triton

    return residual_with_reference_backward(
        pair_triton.add_gated_output, add_gated_output_reference, z, *tensors
    )


def add_gated_output_reference(
    z: Float[Tensor, "I N C"],
    product: Float[Tensor, "K I N"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    norm_out_w: Float[Tensor, " K"],
    norm_out_b: Float[Tensor, " K"],
    p_out: Float[Tensor, "C K"],
    g_out: Float[Tensor, "C C"],
) -> Float[Tensor, "I N C"]:
    """The same in torch."""
    x = layer_norm(z, norm_w, norm_b).to(g_out.dtype)
    y = layer_norm(product.permute(1, 2, 0), norm_out_w, norm_out_b).to(p_out.dtype)
    return add(z, F.linear(y, p_out) * F.linear(x, g_out).sigmoid())
