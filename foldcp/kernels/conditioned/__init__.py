"""Operations of a conditioned transformer between and around its matrix products."""

from __future__ import annotations

import torch

from foldcp.kernels.conditioned.reference import (
    AddTransition,
    ConditionedOps,
    Modulation,
    TransitionWeights,
)
from foldcp.kernels.dispatch import Backend

__all__ = [
    "AddTransition",
    "ConditionedOps",
    "Modulation",
    "TransitionWeights",
    "choose",
    "choose_transition",
]

MAX_TRANSITION_CHANNELS = 128  # a program of the fused kernel holds whole atoms


def choose(backend: Backend, dtype: torch.dtype) -> ConditionedOps:
    """The implementation for matrix products in this type."""
    if not backend.can_fuse(dtype):
        return ConditionedOps()
    if backend.hopper:
        from foldcp.kernels.conditioned.glu_linear import ConditionedOpsHopper, load

        kernel = load()
        if kernel is not None:
            return ConditionedOpsHopper(kernel)
    from foldcp.kernels.conditioned.triton import ConditionedOpsTriton

    return ConditionedOpsTriton()


def choose_transition(backend: Backend, channels: int) -> AddTransition:
    """The implementation for so many channels; it computes with fp16 whatever the type of a."""
    if not backend.can_fuse(torch.bfloat16) or channels > MAX_TRANSITION_CHANNELS:
        return AddTransition()
    from foldcp.kernels.conditioned.triton import AddTransitionTriton

    return AddTransitionTriton()
