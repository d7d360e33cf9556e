"""The references of the pair updates against their equations in float64, written with einsum."""

import pytest
import torch
from torch import Tensor

from foldcp.kernels.autograd import residual_with_reference_backward, with_reference_backward
from foldcp.kernels.projection import (
    AddAttentionOutput,
    AttentionOutputWeights,
    Projection,
    ProjectionWeights,
)
from foldcp.kernels.transition import AddTransition, TransitionWeights
from foldcp.kernels.triangle_multiplication import (
    AddGatedOutput,
    GatedOutputWeights,
    GatedProjection,
    GatedProjectionWeights,
)

I = 5
N = 13
C = 12
K = 10
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
MIXES = [  # the type of z, the type of the matrix products
    (torch.float32, torch.float32),
    (torch.float32, torch.bfloat16),
    (torch.bfloat16, torch.bfloat16),
]


class Draw:
    """Fresh numbers of any shape."""

    def __init__(self, seed: int) -> None:
        self.rng = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, generator=self.rng).to(dtype)

    def mask(self, size: int) -> Tensor:
        return (torch.rand(size, generator=self.rng) < 0.8).float()


def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    x = x.double()
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()
        + bias.double()
    )


def close(got: Tensor, expected: Tensor, tolerance: float) -> bool:
    return bool((got.double() - expected).norm() < tolerance * expected.norm())


@pytest.mark.parametrize(("residual_dtype", "compute_dtype"), MIXES)
def test_gated_projection_follows_its_equation(
    residual_dtype: torch.dtype, compute_dtype: torch.dtype
) -> None:
    draw = Draw(0)
    z = draw(I, N, C, dtype=residual_dtype)
    w = draw(C)
    b = draw(C)
    of_columns = draw.mask(N)
    of_rows = draw.mask(I)
    p = draw(2 * K, C, dtype=compute_dtype)
    g = draw(2 * K, C, dtype=compute_dtype)
    x = norm(z, w, b)
    both = (
        torch.einsum("inc,kc->kin", x, p.double())
        * torch.einsum("inc,kc->kin", x, g.double()).sigmoid()
    )
    weights = GatedProjectionWeights(w, b, p, g)
    some = GatedProjectionWeights(w, b, p[3:7], g[3:7])
    gated_projection = GatedProjection()
    got = gated_projection(z, of_columns, weights)
    assert got.dtype == compute_dtype
    assert close(got, both * of_columns, TOLERANCE[compute_dtype])
    assert close(
        gated_projection(z, of_columns, some),
        (both * of_columns)[3:7],
        TOLERANCE[compute_dtype],
    )
    assert close(
        gated_projection(z, of_rows[:, None], weights),
        both * of_rows[:, None],
        TOLERANCE[compute_dtype],
    )


@pytest.mark.parametrize(("residual_dtype", "compute_dtype"), MIXES)
@torch.no_grad()
def test_add_gated_output_follows_its_equation(
    residual_dtype: torch.dtype, compute_dtype: torch.dtype
) -> None:
    draw = Draw(1)
    z = draw(I, N, C, dtype=residual_dtype)
    product = draw(K, I, N, dtype=compute_dtype)
    w = draw(C)
    b = draw(C)
    w_out = draw(K)
    b_out = draw(K)
    p = draw(C, K, dtype=compute_dtype)
    g = draw(C, C, dtype=compute_dtype)
    y = norm(product.permute(1, 2, 0), w_out, b_out)
    update = (y @ p.double().T) * (norm(z, w, b) @ g.double().T).sigmoid()
    expected = z.double() + update
    got = AddGatedOutput()(z, product, GatedOutputWeights(w, b, w_out, b_out, p, g))
    assert got is z
    assert z.dtype == residual_dtype
    assert close(got, expected, TOLERANCE[compute_dtype])


@pytest.mark.parametrize(("residual_dtype", "compute_dtype"), MIXES)
@torch.no_grad()
def test_add_transition_follows_its_equation(
    residual_dtype: torch.dtype, compute_dtype: torch.dtype
) -> None:
    draw = Draw(2)
    z = draw(I, N, C, dtype=residual_dtype)
    w = draw(C)
    b = draw(C)
    w1 = draw(K, C, dtype=compute_dtype)
    w2 = draw(K, C, dtype=compute_dtype)
    w3 = draw(C, K, dtype=compute_dtype)
    x = norm(z, w, b)
    first = x @ w1.double().T
    expected = z.double() + (first / (1 + (-first).exp()) * (x @ w2.double().T)) @ w3.double().T
    assert AddTransition()(z, TransitionWeights(w, b, w1, w2, w3)) is z
    assert close(z, expected, TOLERANCE[compute_dtype])


@pytest.mark.parametrize(("residual_dtype", "compute_dtype"), MIXES)
@torch.no_grad()
def test_projection_and_attention_output_follow_their_equations(
    residual_dtype: torch.dtype, compute_dtype: torch.dtype
) -> None:
    draw = Draw(3)
    z = draw(I, N, C, dtype=residual_dtype)
    out = draw(I, N, K, dtype=compute_dtype)
    w = draw(C)
    b = draw(C)
    gate = draw(K, C, dtype=compute_dtype)
    weight = draw(C, K, dtype=compute_dtype)
    x = norm(z, w, b)
    projected = Projection()(z, ProjectionWeights(w, b, gate))
    assert projected.dtype == compute_dtype
    assert close(projected, x @ gate.double().T, TOLERANCE[compute_dtype])
    expected = z.double() + (out.double() / (1 + (-x @ gate.double().T).exp())) @ weight.double().T
    assert AddAttentionOutput()(z, out, AttentionOutputWeights(w, b, gate, weight)) is z
    assert close(z, expected, TOLERANCE[compute_dtype])


def test_add_transition_leaves_z_alone_with_gradients() -> None:
    draw = Draw(4)
    z = draw(I, N, C)
    w = draw(C)
    b = draw(C)
    w1 = draw(K, C).requires_grad_()
    w2 = draw(K, C)
    w3 = draw(C, K)
    before = z.clone()
    after = AddTransition()(z, TransitionWeights(w, b, w1, w2, w3))
    after.sum().backward()
    assert torch.equal(z, before)
    assert w1.grad is not None
    with torch.no_grad():
        torch.testing.assert_close(AddTransition()(z, TransitionWeights(w, b, w1, w2, w3)), after)


def test_channels_first_is_the_projection_transposed() -> None:
    draw = Draw(6)
    z = draw(I, N, C)
    w = draw(C)
    b = draw(C)
    weights = ProjectionWeights(w, b, draw(K, C))
    torch.testing.assert_close(
        Projection().channels_first(z, weights),
        Projection()(z, weights).permute(2, 0, 1),
        atol=0,
        rtol=0,
    )


def test_qkv_of_blocks_is_that_of_whole_rows() -> None:
    draw = Draw(9)
    z = draw(I, 12, C)
    weights = ProjectionWeights(draw(C), draw(C), draw(3 * 8, C))
    blocks = list(z.split(4, 1))
    for got, expected in zip(
        Projection().qkv(blocks, weights, num_heads=2),
        Projection()(z, weights).unflatten(-1, (3, 2, 4)).unbind(-3),
        strict=True,
    ):
        assert torch.equal(got, expected)


def test_with_reference_backward_gives_the_gradient_of_the_reference() -> None:
    draw = Draw(7)
    x = draw(N)
    y = draw(N)
    weight = draw(N)
    calls = []

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        calls.append("kernel")
        return x.sin() * y + 100  # a value that tells it from the reference

    def reference(x: Tensor, y: Tensor) -> Tensor:
        calls.append("reference")
        return x.sin() * y

    assert torch.equal(with_reference_backward(kernel, reference, x, y), x.sin() * y + 100)
    assert calls == ["kernel"]
    leaf = x.clone().requires_grad_()
    out = with_reference_backward(kernel, reference, leaf, y)
    assert torch.equal(out, x.sin() * y + 100)
    (gradient,) = torch.autograd.grad((out * weight).sum(), leaf)
    torch.testing.assert_close(gradient, x.cos() * y * weight)
    assert calls == ["kernel", "kernel", "reference"]


def test_residual_with_reference_backward_writes_in_place_only_without_gradients() -> None:
    draw = Draw(8)
    z = draw(N)
    x = draw(N)

    def kernel(z: Tensor, x: Tensor, out: Tensor) -> None:
        torch.add(z, x, alpha=2, out=out)

    def reference(z: Tensor, x: Tensor) -> Tensor:
        return z + 2 * x

    leaf = x.clone().requires_grad_()
    before = z.clone()
    out = residual_with_reference_backward(kernel, reference, z, leaf)
    assert torch.equal(z, before)
    assert torch.equal(torch.autograd.grad(out.sum(), leaf)[0], torch.full_like(x, 2))
    out = residual_with_reference_backward(kernel, reference, z, x)  # another may need z
    assert torch.equal(z, before)
    assert torch.equal(out, before + 2 * x)
    with torch.no_grad():
        assert residual_with_reference_backward(kernel, reference, z, x) is z
    assert torch.equal(z, before + 2 * x)


def test_with_reference_backward_takes_weights_in_a_dataclass() -> None:
    draw = Draw(10)
    x = draw(I, N, C)
    weights = ProjectionWeights(draw(C), draw(C), draw(K, C).requires_grad_())

    def kernel(x: Tensor, weights: ProjectionWeights) -> Tensor:
        return Projection()(x, weights) + 100

    got = with_reference_backward(kernel, Projection(), x, weights)
    assert torch.equal(got, kernel(x, weights))
    (got_gradient,) = torch.autograd.grad(got.sum(), weights.weight)
    (gradient,) = torch.autograd.grad(Projection()(x, weights).sum(), weights.weight)
    torch.testing.assert_close(got_gradient, gradient)
