"""Triangle attention: every row of the pair representation attends over its columns, with one bias
for all rows.
"""

from __future__ import annotations

import torch

from foldcp.kernels.dispatch import Backend
from foldcp.kernels.triangle_attention.reference import RowAttention, TriangleAttention

__all__ = ["RowAttention", "TriangleAttention", "choose"]


def choose(backend: Backend, dtype: torch.dtype, channels: int = 0) -> TriangleAttention:
    """The implementation for q, k and v of this type, projected from so many channels."""
    if not backend.can_fuse(dtype, channels):
        return TriangleAttention()
    from foldcp.kernels.triangle_attention.triton import TriangleAttentionTriton

    return TriangleAttentionTriton(backend.hopper)
