"""What atoms give to their tokens: the mean of a rectified array over each token's atoms."""

from __future__ import annotations

import torch

from foldcp.kernels.dispatch import Backend
from foldcp.kernels.token_mean.reference import TokenMean

__all__ = ["TokenMean", "choose"]


def choose(backend: Backend, dtype: torch.dtype) -> TokenMean:
    """The implementation for atoms of this type."""
    if not backend.can_fuse(dtype):
        return TokenMean()
    from foldcp.kernels.token_mean.triton import TokenMeanTriton

    return TokenMeanTriton()
