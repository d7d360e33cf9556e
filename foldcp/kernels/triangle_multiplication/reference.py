"""Gated projection and gated output of a triangle multiplication, with their weights; the PyTorch
reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import add_residual
from foldcp.kernels.layer_norm import layer_norm


@dataclass(frozen=True)
class GatedProjectionWeights:
    """A projection and its gate, and the LayerNorm before them."""

    norm_weight: Float[Tensor, " C"]
    norm_bias: Float[Tensor, " C"]
    p_in: Float[Tensor, "K C"]
    g_in: Float[Tensor, "K C"]


@dataclass(frozen=True)
class GatedOutputWeights:
    """The output and the LayerNorm before it; the gate and the LayerNorm before that."""

    norm_weight: Float[Tensor, " C"]
    norm_bias: Float[Tensor, " C"]
    norm_out_weight: Float[Tensor, " K"]
    norm_out_bias: Float[Tensor, " K"]
    p_out: Float[Tensor, "C K"]
    g_out: Float[Tensor, "C C"]


class GatedProjection:
    """(p_in x) sigmoid(g_in x) mask with x = LayerNorm(z), channels first, in the type of p_in.

    `mask` is 1 at tokens and 0 at padding, of columns [N] or of rows [I, 1], whichever the product
    sums over. Source: AlphaFold 3, algorithms 12 and 13, lines 1 and 2.
    """

    def __call__(
        self,
        z: Float[Tensor, "I N C"],
        mask: Float[Tensor, " N"] | Float[Tensor, "I 1"],
        weights: GatedProjectionWeights,
    ) -> Float[Tensor, "K I N"]:
        w = weights
        dtype = w.p_in.dtype
        x = layer_norm(z, w.norm_weight, w.norm_bias).to(dtype)
        gated = F.linear(x, w.p_in) * F.linear(x, w.g_in).sigmoid() * mask[..., None].to(dtype)
        return gated.permute(2, 0, 1).contiguous()

    def bytes_per_row(self, N: int, weights: GatedProjectionWeights) -> int:
        """Bytes of the intermediates of a row of N pairs."""
        num_out, channels = weights.p_in.shape
        return N * (channels + 2 * num_out) * 4


class AddGatedOutput:
    """z + p_out(LayerNorm_out(product)) sigmoid(g_out LayerNorm(z)); in place where no gradient is
    wanted.

    `product` has its channels first; computed in the type of p_out, statistics in fp32. Source:
    AlphaFold 3, algorithms 12 and 13, lines 3 and 4, and the residual of algorithm 17.
    """

    def __call__(
        self,
        z: Float[Tensor, "I N C"],
        product: Float[Tensor, "K I N"],
        weights: GatedOutputWeights,
    ) -> Float[Tensor, "I N C"]:
        w = weights
        x = layer_norm(z, w.norm_weight, w.norm_bias).to(w.g_out.dtype)
        product = product.permute(1, 2, 0)
        y = layer_norm(product, w.norm_out_weight, w.norm_out_bias).to(w.p_out.dtype)
        return add_residual(z, F.linear(y, w.p_out) * F.linear(x, w.g_out).sigmoid())

    def bytes_per_row(self, N: int, weights: GatedOutputWeights) -> int:
        """Bytes of the intermediates of a row of N pairs."""
        channels = weights.p_out.shape[0]
        return N * channels * 24
