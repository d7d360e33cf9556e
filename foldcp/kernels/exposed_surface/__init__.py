"""The share of atoms' spheres that no neighbour covers, from which accessible surfaces follow."""

from __future__ import annotations

from foldcp.kernels.dispatch import Backend
from foldcp.kernels.exposed_surface.reference import ExposedSurface, Spheres

__all__ = ["ExposedSurface", "Spheres", "choose"]


def choose(backend: Backend) -> ExposedSurface:
    """The implementation, which has types of its own whatever the network's precision."""
    if not backend.triton:
        return ExposedSurface()
    from foldcp.kernels.exposed_surface.triton import ExposedSurfaceTriton

    return ExposedSurfaceTriton()
