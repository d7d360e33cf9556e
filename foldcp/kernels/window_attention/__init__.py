"""Window attention: 32 atoms attend to the 128 around them, with a pair bias."""

from __future__ import annotations

import torch

from foldcp.kernels.dispatch import Backend
from foldcp.kernels.window_attention.reference import (
    WindowAttention,
    key_windows,
    query_windows,
)

__all__ = ["WindowAttention", "choose", "key_windows", "query_windows"]


def choose(backend: Backend, dtype: torch.dtype) -> WindowAttention:
    """The implementation for queries of this type."""
    if not backend.can_fuse(dtype):
        return WindowAttention()
    from foldcp.kernels.window_attention.triton import WindowAttentionTriton

    return WindowAttentionTriton()
