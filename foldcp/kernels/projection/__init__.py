"""Projections into and out of attention: LayerNorm and matrix product in one read, gate, matrix
product and residual in another.
"""

from __future__ import annotations

from foldcp.kernels.dispatch import Backend
from foldcp.kernels.projection.reference import (
    AddAttentionOutput,
    AttentionOutputWeights,
    Projection,
    ProjectionWeights,
)

__all__ = [
    "AddAttentionOutput",
    "AttentionOutputWeights",
    "Projection",
    "ProjectionWeights",
    "choose",
    "choose_output",
]


def choose(backend: Backend, weights: ProjectionWeights) -> Projection:
    """The implementation of projections by weights of this type and shape."""
    if not backend.can_fuse(weights.weight.dtype, weights.weight.shape[1]):
        return Projection()
    from foldcp.kernels.projection.triton import ProjectionTriton

    if backend.hopper:
        from foldcp.kernels.pair_passes.hopper import available
        from foldcp.kernels.projection.hopper import ProjectionHopper, can_project

        if can_project(weights) and available():
            return ProjectionHopper()
    return ProjectionTriton()


def choose_output(backend: Backend, weights: AttentionOutputWeights) -> AddAttentionOutput:
    """The implementation of an output by weights of this type and shape."""
    if not backend.can_fuse(weights.out.dtype, weights.out.shape[0]):
        return AddAttentionOutput()
    from foldcp.kernels.projection.triton import AddAttentionOutputTriton

    if backend.hopper:
        from foldcp.kernels.pair_passes.hopper import available
        from foldcp.kernels.projection.hopper import AddAttentionOutputHopper, can_add_output

        if can_add_output(weights) and available():
            return AddAttentionOutputHopper()
    return AddAttentionOutputTriton()
