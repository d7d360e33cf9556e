"""Pair-bias attention in Triton, by the kernel of triangle attention, whose rows are samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from foldcp.kernels import bias_layout
from foldcp.kernels.autograd import with_reference_backward
from foldcp.kernels.pair_bias_attention.reference import (
    AttentionUnderBias,
    PairBiasAttention,
)
from foldcp.kernels.triangle_attention.triton import forward_in_triton


@dataclass(frozen=True)
class AttentionUnderBiasTriton(AttentionUnderBias):
    """The attention under biases whose tiles [B * H, ..] are as the kernel reads them."""

    head_axis: ClassVar[int] = 0

    def __call__(
        self,
        q: Float[Tensor, "M Q H D"],
        k: Float[Tensor, "M K H D"],
        v: Float[Tensor, "M K H D"],
    ) -> Float[Tensor, "M Q H D"]:
        out, _ = forward_in_triton(q, k, v, self.prepared)
        return out


class PairBiasAttentionTriton(PairBiasAttention):
    """The attention in one kernel, with the gradient of the reference."""

    def __call__(
        self,
        q: Float[Tensor, "M I H D"],
        k: Float[Tensor, "M N H D"],
        v: Float[Tensor, "M N H D"],
        bias: Float[Tensor, "H I N"],
        mask: Float[Tensor, " N"],
    ) -> Float[Tensor, "M I H D"]:
        return with_reference_backward(self._attend, PairBiasAttention(), q, k, v, bias, mask)

    def prepare(
        self, bias: Float[Tensor, "H I N"], mask: Float[Tensor, " N"]
    ) -> AttentionUnderBiasTriton:
        return AttentionUnderBiasTriton(bias_layout.prepare(bias, mask).tiles)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
        return self.prepare(bias, mask)(q, k, v)
