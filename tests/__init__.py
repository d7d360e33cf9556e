"""Shapes are checked in tests, and free in production."""

from jaxtyping import install_import_hook

TYPED = ("features", "interfaces", "kernels", "metrics", "model", "predict", "rows")
install_import_hook([f"foldcp.{name}" for name in TYPED], "beartype.beartype")
