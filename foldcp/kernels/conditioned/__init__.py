"""Operations of a conditioned transformer between and around its matrix products."""

from __future__ import annotations

import torch

from foldcp.kernels.conditioned.reference import (
    AddSplitTransition,
    ConditionedOps,
    Modulation,
    TransitionWeights,
    split,
)
from foldcp.kernels.dispatch import Backend

__all__ = [
    "AddSplitTransition",
    "ConditionedOps",
    "Modulation",
    "TransitionWeights",
    "choose",
    "choose_split_transition",
    "split",
]

MAX_SPLIT_CHANNELS = 128  # a program of the fused kernel holds whole atoms, twice


def choose(backend: Backend, dtype: torch.dtype) -> ConditionedOps:
    """The implementation for matrix products in this type."""
    if not backend.can_fuse(dtype):
        return ConditionedOps()
    from foldcp.kernels.conditioned.triton import ConditionedOpsTriton

    return ConditionedOpsTriton()


def choose_split_transition(backend: Backend, channels: int) -> AddSplitTransition:
    """The implementation for so many channels; it computes with bf16 whatever the type of a."""
    if not backend.can_fuse(torch.bfloat16) or channels > MAX_SPLIT_CHANNELS:
        return AddSplitTransition()
    from foldcp.kernels.conditioned.triton import AddSplitTransitionTriton

    return AddSplitTransitionTriton()
