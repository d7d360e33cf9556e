"""What stands between the matrix products of a conditioned transformer, against its equations in
float64.

On a GPU the Triton kernels are asked: python -m pytest tests/test_kernels_conditioned.py
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foldcp.kernels.conditioned import (
    add_gated,
    add_split_transition,
    gated,
    glu,
    modulated_norm,
    split,
)

GPU = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ],
)
on_devices = pytest.mark.parametrize("device", ["cpu", GPU])
of_types = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 4e-3}


def error(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want).norm() / want.norm())


def draw(*shape: int, device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, device=device).to(dtype)


def normed(a: Tensor) -> Tensor:
    centred = a.double() - a.double().mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


@on_devices
@of_types
@pytest.mark.parametrize("channels", [768, 128, 24])
def test_modulated_norm(device: str, dtype: torch.dtype, channels: int) -> None:
    a = 3 * draw(3, 37, channels, device=device) + 1
    scale, shift = draw(37, 2, channels, device=device, dtype=dtype).unbind(1)
    got = modulated_norm(a, scale, shift, dtype)
    assert got.dtype == dtype
    assert error(got, scale.double() * normed(a) + shift.double()) < ROUNDING[dtype]


@on_devices
@of_types
@pytest.mark.parametrize("channels", [768, 24])
def test_add_gated(device: str, dtype: torch.dtype, channels: int) -> None:
    a = draw(3, 37, channels, device=device)
    update = draw(3, 37, channels, device=device, dtype=dtype)
    gate = draw(37, 3, channels, device=device, dtype=dtype)[:, 1]
    kept = a.clone()
    got = add_gated(a, update, gate)
    assert got.dtype == torch.float32 and torch.equal(a, kept)
    assert error(got, a.double() + gate.double() * update.double()) < 2e-6


@on_devices
@of_types
def test_gated(device: str, dtype: torch.dtype) -> None:
    x = draw(2, 37, 96, device=device, dtype=dtype)
    gate = 3 * draw(2, 37, 4, 96, device=device, dtype=dtype)[:, :, 3]
    assert error(gated(x, gate), x.double() * gate.double().sigmoid()) < ROUNDING[dtype]


@on_devices
@of_types
@pytest.mark.parametrize("hidden", [1536, 256, 40])
def test_glu(device: str, dtype: torch.dtype, hidden: int) -> None:
    h = 2 * draw(2, 37, 3 * hidden, device=device, dtype=dtype)
    x, y, w = h.double().split(hidden, -1)
    assert error(glu(h), x * y * y.sigmoid() * w) < 2 * ROUNDING[dtype]


@on_devices
@pytest.mark.parametrize("channels", [128, 16, 24])
def test_split_transition_is_nearly_exact(device: str, channels: int) -> None:
    C = channels
    K = 2 * channels
    a = 3 * draw(3, 75, C, device=device) + 1
    given = draw(75, 3, C, device=device)
    scale, shift, gate = given.unbind(1)
    widen = draw(3 * K, C, device=device) / C**0.5
    back = draw(C, K, device=device) / K**0.5
    hidden = (scale * normed(a) + shift) @ widen.double().T
    x, y, w = hidden.split(K, -1)
    update = gate * ((x * y * y.sigmoid() * w) @ back.double().T)
    got = add_split_transition(a, scale, shift, gate, split(widen), split(back))
    assert error(got - a, update) < 3e-5


@on_devices
def test_gradients(device: str) -> None:
    """The kernels pass on the gradients of the torch equations."""
    a = draw(2, 9, 48, device=device)
    update = draw(2, 9, 48, device=device)
    leaves = [x.requires_grad_() for x in (a, update, *draw(3, 9, 48, device=device).unbind(0))]
    widen = draw(288, 48, device=device) / 7
    back = draw(48, 96, device=device) / 10

    def total(a: Tensor, update: Tensor, scale: Tensor, shift: Tensor, gate: Tensor) -> Tensor:
        a = add_gated(a, gated(update, modulated_norm(a, scale, shift, torch.float32)), gate)
        return add_split_transition(a, scale, shift, gate, split(widen), split(back)).square().sum()

    assert all(x.isfinite().all() and x.any() for x in torch.autograd.grad(total(*leaves), leaves))
    assert torch.autograd.gradcheck(lambda h: glu(h), torch.randn(2, 12).double().requires_grad_())
