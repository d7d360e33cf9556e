"""What the outer products of the alignment's columns add to the pair representation."""

from __future__ import annotations

from foldcp.kernels.dispatch import Backend
from foldcp.kernels.outer_product.reference import AddOuterProducts, OuterProductWeights

__all__ = ["AddOuterProducts", "OuterProductWeights", "choose"]

MIN_WIDTH = 16  # of a product on tensor cores


def choose(backend: Backend, weights: OuterProductWeights, width: int) -> AddOuterProducts:
    """The implementation for weights of this type and outer products of width x width numbers."""
    fits = width >= MIN_WIDTH and width & (width - 1) == 0
    if not (fits and backend.can_fuse(weights.weight.dtype, len(weights.weight))):
        return AddOuterProducts()
    from foldcp.kernels.outer_product.triton import AddOuterProductsTriton

    return AddOuterProductsTriton()
