"""8-bit pairs against what they were written from, in float64.

The Triton kernels, on a GPU: python -m pytest tests/kernels/pairs/test_quantization.py -m gpu
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foldcp.kernels import quantization
from foldcp.kernels.dispatch import choose_backend
from foldcp.kernels.quantization import Int8Pairs
from tests.support.distributed import on_devices

bf16 = torch.bfloat16
K = 5
I = 7
GROUP = 64


def written(x: Tensor, chunks: list[slice]) -> Int8Pairs:
    """x in 8 bits, written some channels at a time."""
    num_channels, num_rows, num_columns = x.shape
    pairs = Int8Pairs.empty(num_channels, num_rows, num_columns, x.device)
    for chunk in chunks:
        chosen(x).write(x[chunk], pairs.channels(chunk))
    return pairs


def chosen(x: Tensor) -> quantization.Quantization:
    return quantization.choose(choose_backend("auto", x.device), x.dtype)


def round_trip(x: Tensor) -> Tensor:
    return chosen(x).read(written(x, [slice(None)]), x.dtype)


def allowed(x: Tensor) -> Tensor:
    """Half a step of 1/127 of the largest of each group, and two roundings to bf16."""
    largest = torch.zeros_like(x, dtype=torch.float64)
    for start in range(0, x.shape[-1], GROUP):
        group = x[..., start : start + GROUP].double().abs()
        largest[..., start : start + GROUP] = group.amax(-1, keepdim=True)
    return largest * (0.5 / 127 * (1 + 2**-8) + 1e-6) + x.double().abs() * 2**-8


@on_devices
@pytest.mark.parametrize("num_columns", [1, 63, 64, 65, 200, 1024, 2100])
def test_the_error_is_half_a_step(device: str, num_columns: int) -> None:
    torch.manual_seed(num_columns)
    x = torch.randn(K, I, num_columns, device=device).to(bf16)
    x *= torch.logspace(-3, 3, K, device=device).to(bf16)[:, None, None]
    x[1] = 0
    x[2, 3] *= 1e4  # a huge channel of one row
    got = round_trip(x)
    assert got.dtype == bf16
    assert got.is_contiguous()
    assert (got[1] == 0).all()
    assert ((got.double() - x.double()).abs() <= allowed(x)).all()


@on_devices
def test_numbers_of_all_sizes_are_kept(device: str) -> None:
    largest = torch.finfo(bf16).max / 2
    smallest = torch.finfo(bf16).tiny * 127
    for size in (largest, 1.0, smallest):
        x = torch.linspace(-1, 1, 130, device=device).mul(size).to(bf16).expand(1, 2, -1)
        got = round_trip(x.contiguous())
        assert got.isfinite().all()
        assert ((got.double() - x.double()).abs() <= allowed(x)).all()
    below = torch.full((1, 1, 64), torch.finfo(bf16).tiny / 100, device=device).to(bf16)
    assert (round_trip(below) == 0).all()


@on_devices
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_does_not_vanish(device: str, wrong: float) -> None:
    x = torch.ones(1, 2, 130, device=device).to(bf16)
    x[0, 1, 70] = wrong
    got = round_trip(x)
    assert not got[0, 1, 70].isfinite()
    assert (got[0, 0] == 1).all()
    assert (got[0, 1, :64] == 1).all()


@on_devices
def test_chunks_of_channels_and_rows_change_nothing(device: str) -> None:
    torch.manual_seed(1)
    x = torch.randn(K, I, 150, device=device).to(bf16)
    whole = written(x, [slice(None)])
    parts = written(x, [slice(0, 2), slice(2, 3), slice(3, K)])
    assert torch.equal(whole.values, parts.values)
    assert torch.equal(whole.scales, parts.scales)
    read = chosen(x).read
    rows = slice(2, 5)
    assert torch.equal(read(whole.rows(rows), bf16), read(whole, bf16)[:, rows])
