"""The transition: every pair passes through a two-layer network, in one read and write of z."""

from __future__ import annotations

from foldcp.kernels.dispatch import Backend
from foldcp.kernels.transition.reference import AddTransition, TransitionWeights

__all__ = ["AddTransition", "TransitionWeights", "choose"]


def choose(backend: Backend, weights: TransitionWeights) -> AddTransition:
    """The implementation for weights of these types and shapes."""
    hidden, channels = weights.fc1.shape
    if not backend.can_fuse(weights.fc1.dtype, channels):
        return AddTransition()
    if backend.hopper:
        from foldcp.kernels.transition import hopper

        if hopper.can_fuse(channels, hidden):
            return hopper.AddTransitionHopper()
    from foldcp.kernels.transition.triton import AddTransitionTriton

    return AddTransitionTriton()
