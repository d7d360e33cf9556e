"""Attention with a pair bias that several samples share; the PyTorch reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.triangle_attention.reference import MASKED


@dataclass(frozen=True)
class AttentionUnderBias:
    """`PairBiasAttention` under one bias, prepared for many calls."""

    prepared: Tensor  # the bias with the mask: here [1, H, I, N], to be added

    def __call__(
        self,
        q: Float[Tensor, "M I H D"],
        k: Float[Tensor, "M N H D"],
        v: Float[Tensor, "M N H D"],
    ) -> Float[Tensor, "M I H D"]:
        q = q.transpose(1, 2)
        k = k.transpose(1, 2)
        v = v.transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.prepared).transpose(1, 2)


class PairBiasAttention:
    """out[m, i] = sum_j softmax_j(q[m, i] . k[m, j] / sqrt(D) + bias[i, j] - 1e9 (1 - mask[j]))
    v[m, j].

    M samples share the bias of this rank's I queries over all N keys; `mask` is 1 at tokens, 0 at
    padding. Any strides; result in the type of q. Differentiable. Source: AlphaFold 3, algorithm
    24, lines 4 to 8.
    """

    def __call__(
        self,
        q: Float[Tensor, "M I H D"],
        k: Float[Tensor, "M N H D"],
        v: Float[Tensor, "M N H D"],
        bias: Float[Tensor, "H I N"],
        mask: Float[Tensor, " N"],
    ) -> Float[Tensor, "M I H D"]:
        return AttentionUnderBias(_additive(bias.to(q.dtype), mask))(q, k, v)

    def prepare(
        self, bias: Float[Tensor, "H I N"], mask: Float[Tensor, " N"]
    ) -> AttentionUnderBias:
        """The attention under this bias, for queries of its type; takes as much memory as the bias.
        No gradient.
        """
        return AttentionUnderBias(_additive(bias, mask))


def _additive(bias: Float[Tensor, "H I N"], mask: Float[Tensor, " N"]) -> Float[Tensor, "1 H I N"]:
    return (bias + MASKED * (1 - mask.to(bias.dtype))).unsqueeze(0)
