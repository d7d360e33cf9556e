"""The transition: every pair passes through a two-layer network, in one read and write of z."""

from __future__ import annotations

from foldcp.kernels.dispatch import Backend
from foldcp.kernels.transition.reference import AddTransition, TransitionWeights

__all__ = ["AddTransition", "TransitionWeights", "choose"]


def choose(backend: Backend, weights: TransitionWeights) -> AddTransition:
    """The implementation for weights of these types and shapes."""
    if not backend.can_fuse(weights.fc1.dtype, weights.fc1.shape[1]):
        return AddTransition()
    if backend.hopper:
        from foldcp.kernels.pair_passes.hopper import available
        from foldcp.kernels.transition.hopper import AddTransitionHopper, can_fuse

        if can_fuse(weights) and available():
            return AddTransitionHopper()
    from foldcp.kernels.transition.triton import AddTransitionTriton

    return AddTransitionTriton()
