"""LayerNorm: the reference beside float64, and which calls the kernels take."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from foldcp.kernels import layer_norm as package
from foldcp.kernels.dispatch import Backend
from foldcp.kernels.layer_norm import EPSILON, layer_norm
from foldcp.model.layers.layers import LayerNorm

bf16 = torch.bfloat16


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def equation(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + EPSILON).sqrt() * weight + bias


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, bf16])
def test_layer_norm_follows_the_equation(dtype: torch.dtype) -> None:
    x = draw(3, 5, 24, dtype=dtype).requires_grad_()
    weight, bias = (draw(24, seed=seed).requires_grad_() for seed in (1, 2))
    factor = draw(3, 5, 24, seed=3)
    exact = [a.detach().double().requires_grad_() for a in (x, weight, bias)]
    got, expected = layer_norm(x, weight, bias), equation(*exact)
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-6)
    gradients = torch.autograd.grad((got * factor).sum(), (x, weight, bias))
    wanted = torch.autograd.grad((expected * factor).sum(), exact)
    for a, b, leaf in zip(gradients, wanted, (x, weight, bias), strict=True):
        assert a.dtype == leaf.dtype
        rounding = 2.0**-8 if a.dtype == bf16 else 0
        torch.testing.assert_close(a.double(), b, rtol=rounding, atol=1e-5)


@pytest.mark.parametrize("out_dtype", [None, bf16])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, bf16])
def test_layer_is_that_of_torch_to_the_last_bit(
    dtype: torch.dtype, out_dtype: torch.dtype | None
) -> None:
    layer = LayerNorm(24)
    layer.out_dtype = out_dtype
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    layer.to(torch.float64 if dtype == torch.float64 else torch.float32)
    x = draw(3, 5, 24, dtype=dtype)
    with torch.no_grad():
        expected = F.layer_norm(x.to(layer.weight.dtype), (24,), layer.weight, layer.bias, 1e-5)
        assert torch.equal(layer(x), expected.to(out_dtype or expected.dtype))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What computed each call, for tensors that are on a GPU in name only."""
    names: list[str] = []

    def record(name: str) -> Callable[..., Tensor]:
        def compute(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            names.append(name)
            return x

        return compute

    monkeypatch.setattr(package, "_kernel", lambda: record("kernel"))
    monkeypatch.setattr(package, "reference", record("torch"))
    return names


@pytest.mark.parametrize(
    ("device", "dtype", "channels", "trained", "fused", "expected"),
    [
        ("cuda", torch.float32, 128, True, False, "kernel"),
        ("cuda", bf16, 1024, True, False, "kernel"),
        ("cuda", torch.float64, 128, True, True, "torch"),
        ("cuda", torch.float32, 1025, True, True, "torch"),
        ("cuda", torch.float32, 128, False, False, "torch"),
        ("cuda", torch.float32, 128, False, True, "kernel"),
        ("cpu", torch.float32, 128, True, True, "torch"),
    ],
)
def test_kernels_take_what_is_trained_or_asked_for_on_a_gpu(
    calls: list[str],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    dtype: torch.dtype,
    channels: int,
    trained: bool,
    fused: bool,
    expected: str,
) -> None:
    # PyTorch without CUDA makes no tensor there that requires a gradient
    monkeypatch.setattr(package, "needs_no_grad", lambda *tensors: not trained)
    with FakeTensorMode():
        x = torch.empty(7, channels, dtype=dtype, device=device)
        weight = torch.empty(channels, device=device)
        layer_norm(x, weight, weight, fused)
    assert calls == [expected]


def test_a_gpu_without_triton_computes_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(package, "find_spec", asked.append)  # which gives None
    monkeypatch.setattr(package, "_kernel", cache(package._kernel.__wrapped__))
    monkeypatch.setattr(package, "needs_no_grad", lambda *tensors: False)
    with FakeTensorMode():
        x = torch.empty(7, 24, dtype=bf16, device="cuda")
        weight = torch.empty(24, device="cuda")
        for _ in range(2):
            assert layer_norm(x, weight, weight).dtype == torch.float32
    assert asked == ["triton"]


def test_a_layer_asks_for_kernels_where_its_backend_has_them(calls: list[str]) -> None:
    layer = LayerNorm(24)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        x = torch.empty(7, 24, device="cuda")
        for backend in (Backend(), Backend("3.6.0"), Backend()):
            layer.use_kernels(backend)
            layer(x)
    assert calls == ["torch", "kernel", "torch"]
