"""Attention with a pair bias that several samples share; the PyTorch reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.triangle_attention.reference import MASKED


@dataclass(frozen=True)
class AttentionUnderBias:
    """`PairBiasAttention` under one bias, prepared for many calls; or under B biases, one for each
    of B blocks of queries and keys that do not see each other.
    """

    prepared: Tensor  # the biases with their masks: here [1, B * H, I, N], to be added
    head_axis: ClassVar[int] = 1  # of `prepared`

    @classmethod
    def packed(cls, attentions: Sequence[AttentionUnderBias]) -> AttentionUnderBias:
        """Those of several blocks of as many queries, one after the other."""
        return cls(torch.cat([attention.prepared for attention in attentions], cls.head_axis))

    def __call__(
        self,
        q: Float[Tensor, "M Q H D"],
        k: Float[Tensor, "M K H D"],
        v: Float[Tensor, "M K H D"],
        gate: Float[Tensor, "M Q H D"],
    ) -> Float[Tensor, "M Q H D"]:
        num_heads = q.shape[2]
        blocks = (self.prepared.shape[1] // num_heads, -1)
        q, k, v = (x.unflatten(1, blocks).transpose(2, 3).flatten(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.prepared)
        return out.unflatten(1, (-1, num_heads)).transpose(2, 3).flatten(1, 2) * gate.sigmoid()


class PairBiasAttention:
    """out[m, i] = sigmoid(gate[m, i]) sum_j softmax_j(q[m, i] . k[m, j] / sqrt(D) + bias[i, j] -
    1e9 (1 - mask[j])) v[m, j].

    M samples share the bias of this rank's I queries over all N keys; `mask` is 1 at tokens, 0 at
    padding. Any strides; result in the type of q. Differentiable. Source: AlphaFold 3, algorithm
    24, lines 4 to 9.
    """

    def input_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The type that q, k, v and gate best have after a product in this type."""
        return dtype

    def __call__(
        self,
        q: Float[Tensor, "M I H D"],
        k: Float[Tensor, "M N H D"],
        v: Float[Tensor, "M N H D"],
        gate: Float[Tensor, "M I H D"],
        bias: Float[Tensor, "H I N"],
        mask: Float[Tensor, " N"],
    ) -> Float[Tensor, "M I H D"]:
        return AttentionUnderBias(_additive(bias.to(q.dtype), mask))(q, k, v, gate)

    def prepare(
        self, bias: Float[Tensor, "H I N"], mask: Float[Tensor, " N"]
    ) -> AttentionUnderBias:
        """The attention under this bias, for queries of its type; takes as much memory as the bias.
        No gradient.
        """
        return AttentionUnderBias(_additive(bias, mask))


def _additive(bias: Float[Tensor, "H I N"], mask: Float[Tensor, " N"]) -> Float[Tensor, "1 H I N"]:
    return (bias + MASKED * (1 - mask.to(bias.dtype))).unsqueeze(0)
