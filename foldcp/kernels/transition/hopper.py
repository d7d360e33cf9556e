"""The transition on Hopper, in CUDA C++."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import residual_with_reference_backward
from foldcp.kernels.pair_passes import hopper
from foldcp.kernels.transition.reference import AddTransition, TransitionWeights
from foldcp.kernels.transition.triton import AddTransitionTriton, add_transition


def can_fuse(weights: TransitionWeights) -> bool:
    """Whether the kernel is made for these sizes."""
    hidden, channels = weights.fc1.shape
    return channels == hopper.WIDTH and hidden % 64 == 0


class AddTransitionHopper(AddTransitionTriton):
    """The transition in the kernel for Hopper."""

    def __call__(
        self, z: Float[Tensor, "*B C"], weights: TransitionWeights
    ) -> Float[Tensor, "*B C"]:
        kernel = hopper.add_transition if hopper.can_read(z) else add_transition
        return residual_with_reference_backward(kernel, AddTransition(), z, weights)
