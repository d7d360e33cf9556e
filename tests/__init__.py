"""Shapes are checked in tests, and free in production."""

from jaxtyping import install_import_hook

TYPED = (
    "distributed.context_parallel",
    "distributed.pipelining",
    "features.featurize",
    "kernels",
    "metrics",
    "model",
    "predict",
)
install_import_hook([f"foldcp.{name}" for name in TYPED], "beartype.beartype")
