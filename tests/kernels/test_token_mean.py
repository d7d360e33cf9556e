"""The mean over each token's atoms against a loop over tokens in float64.

On a GPU the Triton kernel is tested: python -m pytest tests/kernels/test_token_mean.py -m gpu
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foldcp.kernels import token_mean
from foldcp.kernels.dispatch import choose_backend
from foldcp.kernels.token_mean import TokenMean
from tests.support.distributed import on_devices

with_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
with_channels = pytest.mark.parametrize("channels", [768, 24, 1])

# Atoms of each token, and padding after them: that of two complexes, packed, and tokens of padding.
ATOMS = [(8, 0), (1, 0), (23, 0), (5, 71), (11, 0), (4, 17), (0, 0), (0, 0)]


def chosen(device: str, dtype: torch.dtype) -> TokenMean:
    return token_mean.choose(choose_backend("auto", torch.device(device)), dtype)


def tokens(device: str) -> tuple[Tensor, Tensor, Tensor]:
    """The mask of the atoms, the first one of each token, and how many it has."""
    masks = [torch.tensor([1.0] * count + [0.0] * padding) for count, padding in ATOMS]
    counts = torch.tensor([count for count, _ in ATOMS])
    ends = torch.tensor([len(mask) for mask in masks]).cumsum(0)
    first = torch.cat([torch.zeros(1, dtype=torch.int64), ends])
    return torch.cat(masks).to(device), first.to(device), counts[:, None].to(device)


def expected(x: Tensor) -> Tensor:
    of_tokens, first = [], 0
    for count, padding in ATOMS:
        atoms = x[..., first : first + count, :].double().relu()
        of_tokens.append(atoms.sum(-2) / (count + 1e-6))
        first += count + padding
    return torch.stack(of_tokens, -2)


@on_devices
@with_dtypes
@with_channels
def test_tokens_have_the_means_of_their_atoms(
    device: str, dtype: torch.dtype, channels: int
) -> None:
    mask, first, counts = tokens(device)
    x = torch.randn(3, len(mask), channels, device=device).to(dtype)
    got = chosen(device, dtype)(x, mask, first, counts)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected(x), atol=1e-6, rtol=1e-6)
    assert (got[:, -2:] == 0).all()


@on_devices
@with_dtypes
def test_any_number_of_samples_has_the_same_means(device: str, dtype: torch.dtype) -> None:
    mask, first, counts = tokens(device)
    x = torch.randn(4, len(mask), 48, device=device).to(dtype)
    mean = chosen(device, dtype)
    together = mean(x.unflatten(0, (2, 2)), mask, first, counts).flatten(0, 1)
    for sample, of_sample in zip(x, together, strict=True):
        assert torch.equal(mean(sample, mask, first, counts), of_sample)
    strided = torch.cat([x, x], -1)[..., :48]
    assert torch.equal(mean(strided, mask, first, counts), together)


@on_devices
@with_dtypes
def test_the_gradient_reaches_atoms_of_tokens_alone(device: str, dtype: torch.dtype) -> None:
    mask, first, counts = tokens(device)
    x = torch.randn(2, len(mask), 24, device=device).to(dtype).requires_grad_()
    weights = torch.randn(2, len(ATOMS), 24, device=device)
    (gradient,) = torch.autograd.grad(
        (chosen(device, dtype)(x, mask, first, counts) * weights).sum(), x
    )
    exact = x.detach().double().requires_grad_()
    (wanted,) = torch.autograd.grad((expected(exact) * weights).sum(), exact)
    rounding = 1e-6 if dtype == torch.float32 else 8e-3
    torch.testing.assert_close(gradient.double(), wanted, atol=rounding, rtol=rounding)
    assert (gradient[:, mask == 0] == 0).all()
