"""Pairs in 8 bits, written some channels at a time and read some rows at a time."""

from __future__ import annotations

import torch

from foldcp.kernels.dispatch import Backend
from foldcp.kernels.quantization.reference import Int8Pairs, Quantization

__all__ = ["Int8Pairs", "Quantization", "choose"]


def choose(backend: Backend, dtype: torch.dtype) -> Quantization:
    """The implementation for numbers of this type."""
    if not backend.can_fuse(dtype):
        return Quantization()
    from foldcp.kernels.quantization.triton import QuantizationTriton

    return QuantizationTriton()
