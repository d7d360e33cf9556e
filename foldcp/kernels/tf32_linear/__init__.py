"""Linear layers of the single representation: of few rows, but in every block."""

from __future__ import annotations

from foldcp.kernels.dispatch import Backend
from foldcp.kernels.tf32_linear.reference import LinearOps

__all__ = ["LinearOps", "choose"]


def choose(backend: Backend, tf32: bool) -> LinearOps:
    """The implementation where products may be in TF32, or not."""
    if not (tf32 and backend.triton):
        return LinearOps()
    from foldcp.kernels.tf32_linear.triton import LinearOpsTriton

    return LinearOpsTriton()
