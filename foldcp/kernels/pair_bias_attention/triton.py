"""Pair-bias attention by the kernels of triangle attention, whose rows are samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels import bias_layout
from foldcp.kernels.autograd import with_reference_backward
from foldcp.kernels.bias_layout import PreparedBias
from foldcp.kernels.cuda_source import CudaKernel
from foldcp.kernels.pair_bias_attention.reference import (
    AttentionUnderBias,
    PairBiasAttention,
)
from foldcp.kernels.triangle_attention.hopper import num_works
from foldcp.kernels.triangle_attention.triton import forward_in_triton, forward_on_hopper

MIN_WORKS = 96  # with fewer the kernel for Hopper leaves too many of 132 multiprocessors idle


@dataclass(frozen=True)
class AttentionUnderBiasTriton(AttentionUnderBias):
    """The attention under biases whose tiles [B * H, ..] are as the kernel reads them."""

    head_axis: ClassVar[int] = 0

    def __call__(
        self,
        q: Float[Tensor, "M Q H D"],
        k: Float[Tensor, "M K H D"],
        v: Float[Tensor, "M K H D"],
        gate: Float[Tensor, "M Q H D"],
    ) -> Float[Tensor, "M Q H D"]:
        out, _ = forward_in_triton(q, k, v, self.prepared, gate)
        return out


@dataclass(frozen=True)
class AttentionUnderBiasHopper(AttentionUnderBiasTriton):
    """The attention under one bias, with the kernel for Hopper where there is work for it."""

    bias: PreparedBias
    kernel: CudaKernel

    @classmethod
    def packed(cls, attentions: Sequence[AttentionUnderBias]) -> AttentionUnderBias:
        return AttentionUnderBiasTriton.packed(attentions)

    def __call__(
        self,
        q: Float[Tensor, "M Q H D"],
        k: Float[Tensor, "M K H D"],
        v: Float[Tensor, "M K H D"],
        gate: Float[Tensor, "M Q H D"],
    ) -> Float[Tensor, "M Q H D"]:
        if num_works(*q.shape) < MIN_WORKS:
            return super().__call__(q, k, v, gate)
        out, _ = forward_on_hopper(self.kernel, q, k, v, self.bias, gate)
        return out


class PairBiasAttentionTriton(PairBiasAttention):
    """The attention in one kernel, with the gradient of the reference."""

    def __init__(self, hopper: CudaKernel | None = None) -> None:
        self.hopper = hopper

    def input_dtype(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float16

    def __call__(
        self,
        q: Float[Tensor, "M I H D"],
        k: Float[Tensor, "M N H D"],
        v: Float[Tensor, "M N H D"],
        gate: Float[Tensor, "M I H D"],
        bias: Float[Tensor, "H I N"],
        mask: Float[Tensor, " N"],
    ) -> Float[Tensor, "M I H D"]:
        return with_reference_backward(self._attend, PairBiasAttention(), q, k, v, gate, bias, mask)

    def prepare(
        self, bias: Float[Tensor, "H I N"], mask: Float[Tensor, " N"]
    ) -> AttentionUnderBiasTriton:
        prepared = bias_layout.prepare(bias, mask)
        if self.hopper is None:
            return AttentionUnderBiasTriton(prepared.tiles)
        return AttentionUnderBiasHopper(prepared.tiles, prepared, self.hopper)

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor, mask: Tensor
    ) -> Tensor:
        """In the type of q, while the kernel for Hopper gives bf16."""
        if self.hopper is not None and q.dtype == torch.bfloat16:
            return self.prepare(bias, mask)(q, k, v, gate)
        tiles = bias_layout.prepare(bias, mask).tiles
        out, _ = forward_in_triton(q, k, v, tiles, gate, out_dtype=q.dtype)
        return out
