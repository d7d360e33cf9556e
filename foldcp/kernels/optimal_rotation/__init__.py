"""The rotation of a superposition; the PyTorch reference is that of `foldcp.geometry`."""

from __future__ import annotations

from foldcp.geometry import RotationOf, optimal_rotation
from foldcp.kernels.dispatch import Backend


def choose(backend: Backend) -> RotationOf:
    """The implementation, which computes in fp64 and has no gradient."""
    if not backend.triton:
        return optimal_rotation
    from foldcp.kernels.optimal_rotation.triton import optimal_rotation_triton

    return optimal_rotation_triton
