"""Triangle multiplication: the gated projections before its matrix product, the gated output and
the residual after it.
"""

from __future__ import annotations

from foldcp.kernels.dispatch import Backend
from foldcp.kernels.triangle_multiplication.reference import (
    AddGatedOutput,
    GatedOutputWeights,
    GatedProjection,
    GatedProjectionWeights,
)

__all__ = [
    "AddGatedOutput",
    "GatedOutputWeights",
    "GatedProjection",
    "GatedProjectionWeights",
    "choose_output",
    "choose_projection",
]


def choose_projection(backend: Backend, weights: GatedProjectionWeights) -> GatedProjection:
    """The implementation of the gated projection by weights of this type and shape."""
    if not backend.can_fuse(weights.p_in.dtype, weights.p_in.shape[1]):
        return GatedProjection()
    from foldcp.kernels.triangle_multiplication.triton import GatedProjectionTriton

    if backend.hopper:
        from foldcp.kernels.pair_passes.hopper import available
        from foldcp.kernels.triangle_multiplication.hopper import (
            GatedProjectionHopper,
            can_project,
        )

        if can_project(weights) and available():
            return GatedProjectionHopper()
    return GatedProjectionTriton()


def choose_output(backend: Backend, weights: GatedOutputWeights) -> AddGatedOutput:
    """The implementation of the gated output by weights of this type and shape."""
    if not backend.can_fuse(weights.p_out.dtype, weights.p_out.shape[0]):
        return AddGatedOutput()
    from foldcp.kernels.triangle_multiplication.triton import AddGatedOutputTriton

    if backend.hopper:
        from foldcp.kernels.pair_passes.hopper import available
        from foldcp.kernels.triangle_multiplication.hopper import (
            AddGatedOutputHopper,
            can_add_output,
        )

        if can_add_output(weights) and available():
            return AddGatedOutputHopper()
    return AddGatedOutputTriton()
