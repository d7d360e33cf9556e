"""Windows and window attention against their equations; on a GPU also the Triton kernel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foldcp.kernels import window_attention
from foldcp.kernels.dispatch import choose_backend
from foldcp.kernels.window_attention import WindowAttention, key_windows, query_windows
from tests.support.distributed import on_devices

bf16 = torch.bfloat16


def error(got: Tensor, exact: Tensor) -> float:
    return float((got.double() - exact).norm() / exact.norm())


def test_query_windows_are_of_32_atoms_and_key_windows_of_the_128_around_them() -> None:
    x = torch.arange(1.0, 161.0)[:, None]
    assert torch.equal(query_windows(x)[2, :, 0], x[64:96, 0])
    assert torch.equal(key_windows(x)[2, :, 0], x[16:144, 0])
    assert torch.equal(key_windows(x)[0, :, 0], torch.cat([torch.zeros(48), x[:80, 0]]))
    assert torch.equal(key_windows(x)[4, :, 0], torch.cat([x[80:, 0], torch.zeros(48)]))


def test_key_windows_of_heads_are_those_of_each_head() -> None:
    x = torch.randn(2, 96, 3, 4)
    windows = key_windows(x, -3)
    assert windows.shape == (2, 3, 3, 128, 4)
    for head in range(3):
        assert torch.equal(windows[:, :, head], key_windows(x[:, :, head]))


def test_window_attention_is_dense_attention_with_a_mask() -> None:
    M = 2
    A = 96
    H = 3
    D = 4
    q, k, v, gate = torch.randn(4, M, A, H, D, dtype=torch.float64)
    bias = torch.randn(A // 32, H, 32, 128, dtype=torch.float64)
    mask = torch.ones(A, dtype=torch.float64)
    mask[-7:] = 0
    dense = torch.full((H, A, A), -1e6, dtype=torch.float64)
    for window in range(A // 32):
        for key in range(128):
            atom = 32 * window - 48 + key
            if 0 <= atom < A and mask[atom]:
                dense[:, 32 * window : 32 * window + 32, atom] = bias[window, :, :, key]
    scores = torch.einsum("mqhd,mkhd->mhqk", q, k) / D**0.5 + dense
    expected = gate.sigmoid() * torch.einsum("mhqk,mkhd->mqhd", scores.softmax(-1), v)
    torch.testing.assert_close(WindowAttention()(q, k, v, gate, bias, mask), expected)


@on_devices
@pytest.mark.parametrize(
    ("num_samples", "num_windows", "heads", "width"),
    [(5, 7, 4, 32), (1, 1, 3, 24), (2, 3, 2, 8)],
)
def test_window_attention_in_bf16_is_as_exact_as_its_reference(
    num_samples: int, num_windows: int, heads: int, width: int, device: str
) -> None:
    torch.manual_seed(0)
    num_atoms = 32 * num_windows
    qkvg = torch.randn(num_samples, num_atoms, 4, heads, width, device=device).to(bf16).unbind(2)
    bias = torch.randn(num_windows, 32, 128, heads, device=device).to(bf16).permute(0, 3, 1, 2)
    mask = (torch.rand(num_atoms, device=device) < 0.85).float()
    mask[0] = 0.0
    mask[-1] = 1.0
    reference = WindowAttention()
    exact = reference(*(x.double() for x in qkvg), bias.double(), mask.double())
    attention = window_attention.choose(choose_backend("auto", torch.device(device)), bf16)
    got = attention(*qkvg, bias, mask)
    assert got.dtype == bf16
    assert error(got, exact) < 1.02 * error(reference(*qkvg, bias, mask), exact) + 1e-5
