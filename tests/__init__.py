"""Shapes are checked in tests, and free in production."""

from jaxtyping import install_import_hook

TYPED = (
    "datasets.training",
    "distributed.context_parallel",
    "distributed.pipelining",
    "features.crop",
    "features.featurize",
    "kernels",
    "metrics",
    "model",
    "predict",
    "training.data.crop",
    "training.data.complexes",
    "training.data.dataset",
    "training.data.prepared",
    "training.data.sampling",
    "training.data.structure",
    "training.data.symmetries",
)
install_import_hook([f"foldcp.{name}" for name in TYPED], "beartype.beartype")
