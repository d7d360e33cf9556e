"""The choice of a backend, and of an operation's implementation."""

import sys

import pytest
import torch

from foldcp.kernels import projection, transition, triangle_attention, triangle_multiplication
from foldcp.kernels.dispatch import Backend, choose_backend
from foldcp.kernels.projection import (
    AddAttentionOutput,
    AttentionOutputWeights,
    Projection,
    ProjectionWeights,
)
from foldcp.kernels.transition import AddTransition, TransitionWeights
from foldcp.kernels.triangle_attention import TriangleAttention
from foldcp.kernels.triangle_multiplication import (
    AddGatedOutput,
    GatedOutputWeights,
    GatedProjection,
    GatedProjectionWeights,
)
from foldcp.model.layers.layers import KernelModule, set_backend

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


def chosen(backend: Backend, dtype: torch.dtype, channels: int = 12) -> set[type]:
    """The types of the implementations of all operations for weights of this type and width."""
    norm = (torch.ones(channels), torch.zeros(channels))
    wide = torch.zeros(24, channels, dtype=dtype)
    square = torch.zeros(channels, channels, dtype=dtype)
    output = GatedOutputWeights(*norm, *norm, square, square)
    operations = (
        transition.choose(backend, TransitionWeights(*norm, wide, wide, wide.T)),
        projection.choose(backend, ProjectionWeights(*norm, wide)),
        projection.choose_output(backend, AttentionOutputWeights(*norm, wide, wide.T)),
        triangle_attention.choose(backend, dtype, channels),
        triangle_multiplication.choose_projection(
            backend, GatedProjectionWeights(*norm, wide, wide)
        ),
        triangle_multiplication.choose_output(backend, output),
    )
    return {type(operation) for operation in operations}


REFERENCES = {
    AddTransition,
    Projection,
    AddAttentionOutput,
    TriangleAttention,
    GatedProjection,
    AddGatedOutput,
}


@pytest.mark.parametrize("setting", ["auto", "torch"])
def test_choose_backend_gives_torch_on_a_cpu(setting) -> None:
    backend = choose_backend(setting, CPU)
    assert backend == Backend()
    assert backend.describe() == f"torch {torch.__version__}"


def test_choose_backend_refuses_triton_on_a_cpu() -> None:
    with pytest.raises(ValueError, match="'triton' needs a CUDA device"):
        choose_backend("triton", CPU)


@pytest.mark.parametrize("setting", ["auto", "triton"])
def test_choose_backend_never_falls_back_silently(setting, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ValueError, match=r"--set model\.kernels=torch"):
        choose_backend(setting, CUDA)


def test_choose_backend_takes_torch_on_a_gpu_when_asked(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    assert choose_backend("torch", CUDA) == Backend()


@pytest.mark.parametrize(
    ("version", "capability", "hopper"),
    [("3.6.0", (9, 0), True), ("3.6.0", (8, 0), False), ("3.7.0", (9, 0), True)],
)
def test_choose_backend_takes_hopper_kernels_on_hopper_only(
    version, capability, hopper, monkeypatch
) -> None:
    fake = type(sys)("triton")
    fake.__version__ = version
    monkeypatch.setitem(sys.modules, "triton", fake)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    backend = choose_backend("auto", CUDA)
    assert backend == Backend(version, hopper)
    chip = " for Hopper" if hopper else ""
    rest = f"torch {torch.__version__} for the rest"
    assert backend.describe() == f"triton {version}{chip} in bf16, {rest}"


def test_can_fuse_bf16_of_few_channels_only() -> None:
    backend = Backend("3.6.0")
    assert backend.can_fuse(torch.bfloat16, 256)
    assert not backend.can_fuse(torch.bfloat16, 257)
    assert not backend.can_fuse(torch.float32, 128)
    assert not Backend().can_fuse(torch.bfloat16, 128)


@pytest.mark.parametrize(
    ("backend", "dtype", "channels"),
    [
        (Backend("3.6.0", hopper=True), torch.float32, 12),
        (Backend("3.6.0", hopper=True), torch.bfloat16, 384),
        (Backend(), torch.bfloat16, 12),
    ],
    ids=["fp32", "many channels", "torch"],
)
def test_choose_takes_the_reference(backend, dtype, channels) -> None:
    assert chosen(backend, dtype, channels) == REFERENCES


def test_set_backend_chooses_for_every_layer() -> None:
    """Each layer stores what it computes with, and asks for its weights as they are now."""
    asked = []

    class Layer(KernelModule):
        def use_kernels(self, backend: Backend) -> None:
            asked.append((self, backend))

    outer = Layer()
    outer.inner = Layer()
    backend = Backend("3.6.0")
    set_backend(outer, backend)
    assert asked == [(outer, backend), (outer.inner, backend)]
