"""The operations of a conditioned transformer against their equations in float64.

On a GPU the Triton kernels are tested: python -m pytest tests/kernels/test_conditioned.py -m gpu
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foldcp.kernels import conditioned
from foldcp.kernels.conditioned import (
    AddTransition,
    ConditionedOps,
    Modulation,
    TransitionWeights,
)
from foldcp.kernels.dispatch import Backend, choose_backend
from tests.support.distributed import on_devices

with_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 4e-3}


def chosen(device: str, dtype: torch.dtype) -> ConditionedOps:
    return conditioned.choose(choose_backend("auto", torch.device(device)), dtype)


def chosen_transition(device: str, channels: int) -> AddTransition:
    return conditioned.choose_transition(choose_backend("auto", torch.device(device)), channels)


def error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected).norm() / expected.norm())


def draw(*shape: int, device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, device=device).to(dtype)


def normed(a: Tensor) -> Tensor:
    centred = a.double() - a.double().mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


@on_devices
@with_dtypes
@pytest.mark.parametrize("channels", [768, 128, 24])
def test_modulated_norm(device: str, dtype: torch.dtype, channels: int) -> None:
    a = 3 * draw(3, 37, channels, device=device) + 1
    scale, shift = draw(37, 2, channels, device=device, dtype=dtype).unbind(1)
    got = chosen(device, dtype).modulated_norm(a, scale, shift, dtype)
    assert got.dtype == dtype
    expected = scale.double().sigmoid() * normed(a) + shift.double()
    assert error(got, expected) < ROUNDING[dtype]


@on_devices
@with_dtypes
@pytest.mark.parametrize("channels", [768, 24])
def test_add_gated(device: str, dtype: torch.dtype, channels: int) -> None:
    a = draw(3, 37, channels, device=device)
    update = draw(3, 37, channels, device=device, dtype=dtype)
    gate = draw(37, 3, channels, device=device, dtype=dtype)[:, 1]
    before = a.clone()
    got = chosen(device, dtype).add_gated(a, update, gate)
    assert got.dtype == torch.float32 and torch.equal(a, before)
    assert error(got, a.double() + gate.double().sigmoid() * update.double()) < 2e-6


@on_devices
@with_dtypes
@pytest.mark.parametrize("channels", [768, 24])
def test_add_gated_and_norm_are_the_two_operations(
    device: str, dtype: torch.dtype, channels: int
) -> None:
    a = 3 * draw(3, 37, channels, device=device) + 1
    update = draw(3, 37, channels, device=device, dtype=dtype)
    gate, scale, shift = draw(37, 3, channels, device=device, dtype=dtype).unbind(1)
    ops = chosen(device, dtype)
    total, x = ops.add_gated_and_norm(a, update, gate, scale, shift, dtype)
    assert torch.equal(total, ops.add_gated(a, update, gate))
    assert torch.equal(x, ops.modulated_norm(total, scale, shift, dtype))


@on_devices
@with_dtypes
@pytest.mark.parametrize("hidden", [1536, 256, 40])
def test_glu(device: str, dtype: torch.dtype, hidden: int) -> None:
    h = 2 * draw(2, 37, 3 * hidden, device=device, dtype=dtype)
    x, y, w = h.double().split(hidden, -1)
    got = chosen(device, dtype).glu(h)
    assert error(got, x * y * y.sigmoid() * w) < 2 * ROUNDING[dtype]


@on_devices
@with_dtypes
@pytest.mark.parametrize(("rows", "channels", "hidden"), [(37, 24, 16), (517, 768, 1536)])
def test_glu_linear(device: str, dtype: torch.dtype, rows: int, channels: int, hidden: int) -> None:
    x = draw(5, rows, channels, device=device, dtype=dtype)
    up_proj = draw(3 * hidden, channels, device=device, dtype=dtype) / channels**0.5
    up_proj[hidden] *= 1e4  # gates of exactly 0 and 1
    h = x.double() @ up_proj.double().T
    x_, y, w = h.split(hidden, -1)
    got = chosen(device, dtype).glu_linear(x, up_proj)
    assert got.shape == (5, rows, hidden) and got.dtype == dtype
    expected = x_ * y * y.sigmoid() * w
    others = torch.arange(hidden, device=device) > 0
    assert error(got[..., 0], expected[..., 0]) < 3 * ROUNDING[dtype]
    assert error(got[..., others], expected[..., others]) < 3 * ROUNDING[dtype]


@on_devices
@pytest.mark.parametrize(("atoms", "channels"), [(75, 128), (9000, 128), (75, 16), (75, 24)])
def test_add_transition(device: str, atoms: int, channels: int) -> None:
    C = channels
    K = 2 * channels
    a = 3 * draw(3, atoms, C, device=device) + 1
    attended = draw(3, atoms, C, device=device, dtype=torch.bfloat16)
    before, scale, shift, gate = draw(atoms, 4, C, device=device).unbind(1)
    up_proj = draw(3 * K, C, device=device) / C**0.5
    down_proj = draw(C, K, device=device) / K**0.5
    b = a.double() + before.double().sigmoid() * attended.double()
    hidden = (scale.sigmoid() * normed(b) + shift) @ up_proj.double().T
    x, y, w = hidden.split(K, -1)
    update = gate.sigmoid() * ((x * y * y.sigmoid() * w) @ down_proj.double().T)
    weights = TransitionWeights(up_proj.half(), down_proj.half())
    add_transition = chosen_transition(device, channels)
    unchanged = a.clone()
    got = add_transition(a, attended, before, Modulation(scale, shift, gate), weights)
    assert torch.equal(a, unchanged)
    assert error(got - b, update) < 1e-3


@on_devices
def test_operations_have_the_gradients_of_their_equations(device: str) -> None:
    a = draw(2, 9, 48, device=device)
    update = draw(2, 9, 48, device=device)
    leaves = [x.requires_grad_() for x in (a, update, *draw(3, 9, 48, device=device).unbind(0))]
    up_proj = draw(288, 48, device=device) / 7
    down_proj = draw(48, 96, device=device) / 10
    weights = TransitionWeights(up_proj.half(), down_proj.half())
    ops = chosen(device, torch.bfloat16)
    add_transition = chosen_transition(device, channels=48)

    def total(a: Tensor, update: Tensor, scale: Tensor, shift: Tensor, gate: Tensor) -> Tensor:
        x = ops.modulated_norm(a, scale, shift, torch.float32)
        a = ops.add_gated(a, x, gate)
        modulation = Modulation(scale, shift, gate)
        return add_transition(a, update, gate, modulation, weights).square().sum()

    assert all(x.isfinite().all() and x.any() for x in torch.autograd.grad(total(*leaves), leaves))
    h = torch.randn(2, 12).double().requires_grad_()
    assert torch.autograd.gradcheck(ConditionedOps().glu, h)


def test_choose_takes_the_reference_for_fp32_and_for_many_channels() -> None:
    backend = Backend("3.6.0")
    assert type(conditioned.choose(backend, torch.float32)) is ConditionedOps
    assert type(conditioned.choose(Backend(), torch.bfloat16)) is ConditionedOps
    assert type(conditioned.choose_transition(backend, 129)) is AddTransition
    assert type(conditioned.choose_transition(Backend(), 128)) is AddTransition
