"""The choice of a backend, and of an operation's implementation."""

import sys

import pytest
import torch

from foldcp.kernels import transition
from foldcp.kernels.dispatch import Backend, choose_backend
from foldcp.kernels.transition import AddTransition, TransitionWeights

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


def weights(dtype: torch.dtype, channels: int = 12) -> TransitionWeights:
    wide = torch.zeros(24, channels, dtype=dtype)
    return TransitionWeights(torch.ones(channels), torch.zeros(channels), wide, wide, wide.T)


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
    [("3.6.0", (9, 0), True), ("3.6.0", (8, 0), False), ("3.7.0", (9, 0), False)],
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


def test_choose_takes_the_reference_for_fp32_and_for_many_channels() -> None:
    backend = Backend("3.6.0", hopper=True)
    for chosen in (
        transition.choose(backend, weights(torch.float32)),
        transition.choose(backend, weights(torch.bfloat16, 384)),
        transition.choose(Backend(), weights(torch.bfloat16)),
    ):
        assert type(chosen) is AddTransition
