"""What outer products add to pairs against their equation in float64.

The Triton kernel, on a GPU: python -m pytest tests/kernels/pairs/test_outer_product.py -m gpu
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from foldcp.kernels import outer_product
from foldcp.kernels.dispatch import Backend, choose_backend
from foldcp.kernels.outer_product import AddOuterProducts, OuterProductWeights
from tests.support.distributed import on_devices

with_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
# Rows, columns, channels and width of the outer products; 8 are too narrow for the kernel.
with_sizes = pytest.mark.parametrize("sizes", [(3, 150, 128, 32), (5, 7, 40, 16), (2, 33, 24, 8)])


@dataclass(frozen=True)
class Case:
    """Random arguments; z and the sums are views, as chunks of rows and columns are."""

    z: Tensor
    outer: Tensor
    count: Tensor
    weights: OuterProductWeights

    def expected(self) -> Tensor:
        D = len(self.outer)
        weight = self.weights.weight.double().view(-1, D, D)
        product = torch.einsum("cde,dije->ijc", weight, self.outer.double())
        update = product / self.count.double()[..., None] + self.weights.bias.double()
        return self.z.double() + update


def case(sizes: tuple[int, int, int, int], device: str, dtype: torch.dtype) -> Case:
    I, J, C, D = sizes

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device)

    return Case(
        z=draw(I + 2, J + 3, C)[1:-1, 2:-1],
        outer=draw(D, I, J, D).to(dtype),
        count=torch.randint(1, 9, (I, J), device=device).float(),
        weights=OuterProductWeights(draw(C, D * D).to(dtype) / D, draw(C).to(dtype)),
    )


def chosen(device: str, weights: OuterProductWeights, width: int) -> AddOuterProducts:
    backend = choose_backend("auto", torch.device(device))
    return outer_product.choose(backend, weights, width)


def error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected).norm() / expected.norm())


@on_devices
@with_dtypes
@with_sizes
@pytest.mark.parametrize("residual", [torch.float32, torch.bfloat16])
def test_z_gets_the_projected_means_in_place(
    device: str, dtype: torch.dtype, sizes: tuple[int, int, int, int], residual: torch.dtype
) -> None:
    drawn = case(sizes, device, dtype)
    drawn = Case(drawn.z.to(residual), drawn.outer, drawn.count, drawn.weights)
    expected = drawn.expected()
    add = chosen(device, drawn.weights, sizes[-1])
    with torch.no_grad():
        got = add(drawn.z, drawn.outer, drawn.count, drawn.weights)
    assert got.data_ptr() == drawn.z.data_ptr()
    rounding = 2e-6 if dtype == residual == torch.float32 else 4e-3
    assert error(got, expected) < rounding


@on_devices
@with_dtypes
@with_sizes
def test_gradients_follow_the_equation(
    device: str, dtype: torch.dtype, sizes: tuple[int, int, int, int]
) -> None:
    drawn = case(sizes, device, dtype)
    leaves = [drawn.z, drawn.outer, drawn.weights.weight, drawn.weights.bias]
    leaves = [x.detach().clone().requires_grad_() for x in leaves]
    z, outer, weight, bias = leaves
    add = chosen(device, drawn.weights, sizes[-1])
    out = add(z, outer, drawn.count, OuterProductWeights(weight, bias))
    assert torch.equal(z, drawn.z)
    scale = torch.randn_like(out)
    got = torch.autograd.grad((out * scale).sum(), leaves)
    exact = [x.detach().double().requires_grad_() for x in leaves]
    z, outer, weight, bias = exact
    expected = Case(z, outer, drawn.count, OuterProductWeights(weight, bias)).expected()
    wanted = torch.autograd.grad((expected * scale).sum(), exact)
    for a, b in zip(got, wanted, strict=True):
        assert error(a, b) < (2e-6 if dtype == torch.float32 else 1e-2)


def test_what_a_kernel_cannot_compute_stays_in_torch() -> None:
    backend = Backend(triton="3.6.0")
    for weight, width in [
        (torch.zeros(128, 1024), 32),
        (torch.zeros(128, 64, dtype=torch.bfloat16), 8),
        (torch.zeros(128, 24 * 24, dtype=torch.bfloat16), 24),
        (torch.zeros(512, 1024, dtype=torch.bfloat16), 32),
    ]:
        weights = OuterProductWeights(weight, weight[:, 0])
        assert type(outer_product.choose(backend, weights, width)) is AddOuterProducts
