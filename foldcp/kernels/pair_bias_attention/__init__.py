"""Pair-bias attention: tokens attend to tokens with a pair bias that several samples share."""

from __future__ import annotations

import torch

from foldcp.kernels.dispatch import Backend
from foldcp.kernels.pair_bias_attention.reference import (
    AttentionUnderBias,
    PairBiasAttention,
)

__all__ = ["AttentionUnderBias", "PairBiasAttention", "choose"]


def choose(backend: Backend, dtype: torch.dtype, width: int) -> PairBiasAttention:
    """The implementation for products and a bias of this type, and heads of this width."""
    if not backend.can_fuse(dtype):
        return PairBiasAttention()
    from foldcp.kernels.pair_bias_attention.triton import PairBiasAttentionTriton
    from foldcp.kernels.triangle_attention.hopper import load

    return PairBiasAttentionTriton(load(width) if backend.hopper else None)
