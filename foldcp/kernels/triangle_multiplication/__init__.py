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

    return GatedProjectionTriton()


def choose_output(backend: Backend, weights: GatedOutputWeights) -> AddGatedOutput:
    """The implementation of the gated output by weights of this type and shape."""
    if not backend.can_fuse(weights.p_out.dtype, weights.p_out.shape[0]):
        return AddGatedOutput()
    from foldcp.kernels.triangle_multiplication.triton import AddGatedOutputTriton

    if backend.hopper:
        from foldcp.kernels.pair_tiles import fit_on_chip
        from foldcp.kernels.triangle_multiplication.hopper import AddGatedOutputHopper

        if fit_on_chip(weights.p_out, weights.g_out):
            return AddGatedOutputHopper()
    return AddGatedOutputTriton()
