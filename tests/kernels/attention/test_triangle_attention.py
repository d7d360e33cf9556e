"""Triangle attention against its equation in float64, at sizes that divide by nothing."""

import pytest
import torch
from torch import Tensor

from foldcp.kernels.triangle_attention import TriangleAttention, reference

triangle_attention = TriangleAttention()


def draw(
    num_rows: int,
    num_tokens: int,
    num_heads: int,
    width: int,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, num_rows, num_tokens, num_heads, width, generator=rng).to(dtype)
    bias = torch.randn(num_heads, num_tokens, num_tokens, generator=rng).to(dtype)
    mask = (torch.rand(num_tokens, generator=rng) < 0.8).to(dtype)
    return q, k, v, bias, mask


def equation(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    q, k, v, bias, mask = (x.double() for x in (q, k, v, bias, mask))
    scores = torch.einsum("inhd,imhd->ihnm", q, k) * q.shape[-1] ** -0.5 + bias - 1e9 * (1 - mask)
    return torch.einsum("ihnm,imhd->inhd", scores.softmax(-1), v)


@pytest.mark.parametrize("width", [8, 32])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
def test_reference_follows_the_equation(width, dtype, tolerance, monkeypatch) -> None:
    monkeypatch.setattr(reference, "MAX_SCORE_BYTES", 4 * 4 * 29**2 * 3)  # three rows a chunk
    inputs = draw(7, 29, 4, width, dtype)
    expected = equation(*inputs)
    out = triangle_attention(*inputs)
    assert out.dtype == dtype
    assert (out - expected).norm() < tolerance * expected.norm()


def test_reference_takes_any_strides() -> None:
    q, k, v, bias, mask = draw(5, 13, 2, 8)
    packed = torch.stack([q, k, v], dim=-2).transpose(0, 1).contiguous().transpose(0, 1)
    bias = bias.transpose(1, 2)
    out = triangle_attention(*packed.unbind(-2), bias, mask)
    torch.testing.assert_close(out.double(), equation(q, k, v, bias, mask), atol=1e-5, rtol=1e-5)


def test_reference_gradients_follow_the_equation(monkeypatch) -> None:
    monkeypatch.setattr(reference, "MAX_SCORE_BYTES", 4 * 2 * 13**2 * 2)
    *inputs, mask = draw(5, 13, 2, 8)
    weight = torch.randn(5, 13, 2, 8, generator=torch.Generator().manual_seed(1))
    leaves = [x.requires_grad_() for x in inputs]
    grads = torch.autograd.grad((triangle_attention(*leaves, mask) * weight).sum(), leaves)
    expected = torch.autograd.grad((equation(*leaves, mask) * weight).sum(), leaves)
    for gradient, exact in zip(grads, expected, strict=True):
        torch.testing.assert_close(gradient, exact, atol=1e-5, rtol=1e-4)


def test_triangle_attention_ignores_padding_keys() -> None:
    q, k, v, bias, mask = draw(3, 13, 2, 8)
    before = triangle_attention(q, k, v, bias, mask)
    padding = mask[None, :, None, None] == 0
    k = k.masked_fill(padding, 50)
    v = v.masked_fill(padding, 50)
    after = triangle_attention(q, k, v, bias, mask)
    torch.testing.assert_close(before, after, atol=0, rtol=0)


def test_under_gives_the_same_for_any_rows() -> None:
    q, k, v, bias, mask = draw(5, 13, 2, 8)
    attend = triangle_attention.under(bias, mask)
    whole = triangle_attention(q, k, v, bias, mask)
    for rows in (slice(0, 2), slice(2, 5)):
        torch.testing.assert_close(attend(q[rows], k[rows], v[rows]), whole[rows])
