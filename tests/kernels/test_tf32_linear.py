"""Linear layers of the single representation against float64.

On a GPU the Triton kernels are tested: python -m pytest tests/kernels/test_tf32_linear.py -m gpu
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foldcp.kernels import tf32_linear
from foldcp.kernels.dispatch import choose_backend
from foldcp.kernels.tf32_linear import LinearOps
from tests.support.distributed import on_devices

with_shapes = pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(1, 384, 384), (37, 48, 40), (517, 384, 1536), (130, 20, 7)]
)
ERROR = {"cpu": 1e-6, "cuda": 2e-3}  # of TF32, of which the last has three factors


def chosen(device: str) -> LinearOps:
    return tf32_linear.choose(choose_backend("auto", torch.device(device)), tf32=True)


def draw(device: str, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(device)


def assert_near(got: Tensor, expected: Tensor) -> None:
    error = (got.double() - expected).norm() / expected.norm()
    assert error < ERROR[got.device.type], error


@on_devices
@with_shapes
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_products_with_weights_lie_side_by_side(
    device: str, rows: int, inputs: int, outputs: int, parts: int
) -> None:
    x = draw(device, rows, inputs)
    weights = [draw(device, outputs, inputs) + part for part in range(parts)]
    bias = 9.0 * draw(device, outputs)
    expected = torch.cat([x.double() @ weight.double().T for weight in weights], 1)
    got = chosen(device).linear(x, weights)
    assert got.dtype == torch.float32
    assert_near(got, expected)
    expected[:, :outputs] += bias.double()
    got = chosen(device).linear(x, weights, bias, dtype=torch.float16)
    assert got.dtype == torch.float16
    error = (got.double() - expected).norm() / expected.norm()
    assert error < 2e-3, error


@on_devices
@with_shapes
def test_inputs_may_be_in_fp16(device: str, rows: int, inputs: int, outputs: int) -> None:
    x = draw(device, rows, 2, inputs).half()[:, 1]  # rows that do not follow each other
    weight = draw(device, outputs, inputs)
    got = chosen(device).linear(x, [weight])
    assert got.dtype == torch.float32
    assert_near(got, x.double() @ weight.double().T)


@on_devices
@with_shapes
def test_swiglu(device: str, rows: int, inputs: int, outputs: int) -> None:
    x = draw(device, rows, inputs)
    fc1 = draw(device, outputs, inputs)
    fc2 = draw(device, outputs + 1, inputs)[1:]
    value = x.double() @ fc1.double().T
    expected = value * value.sigmoid() * (x.double() @ fc2.double().T)
    assert_near(chosen(device).swiglu(x, fc1, fc2), expected)


def test_products_are_in_fp32_where_tf32_is_not_allowed() -> None:
    backend = choose_backend("auto", torch.device("cpu"))
    assert type(tf32_linear.choose(backend, tf32=False)) is LinearOps
