"""The Triton kernels against float64 equations on a GPU: odd sizes, real masks, strides, and
gradients.

Run on a machine with one:  python -m pytest tests/kernels/test_kernels_gpu.py -m gpu
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foldcp.kernels import projection, transition, triangle_attention, triangle_multiplication
from foldcp.kernels.dispatch import Backend, choose_backend
from foldcp.kernels.projection import (
    AddAttentionOutput,
    AttentionOutputWeights,
    Projection,
    ProjectionWeights,
)
from foldcp.kernels.transition import AddTransition, TransitionWeights
from foldcp.kernels.triangle_attention import TriangleAttention
from foldcp.kernels.triangle_multiplication import (
    AddGatedOutput,
    GatedOutputWeights,
    GatedProjection,
    GatedProjectionWeights,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
bf16 = torch.bfloat16


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, device="cuda").to(dtype)


def draw_mask(size: int) -> Tensor:
    mask = (torch.rand(size, device="cuda") < 0.85).float()
    mask[0], mask[-1] = 0.0, 1.0
    return mask


def error(got: Tensor, expected: Tensor) -> float:
    return ((got.double() - expected).norm() / expected.norm()).item()


def equation(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    scores = torch.einsum("inhd,imhd->ihnm", q, k) * q.shape[-1] ** -0.5 + bias - 1e9 * (1 - mask)
    return torch.einsum("ihnm,imhd->inhd", scores.softmax(-1), v)


def draw_attention(
    num_rows: int, num_tokens: int, width: int, q_size: float, bias_size: float
) -> list[Tensor]:
    heads = 3
    qkv = draw(num_rows, num_tokens, 3, heads, width)
    qkv[:, :, 0] *= q_size
    bias = (bias_size * draw(num_tokens, heads, num_tokens)).to(bf16).transpose(0, 1)
    return [*qkv.to(bf16).unbind(2), bias, draw_mask(num_tokens)]


CASES = [  # rows, tokens, head width, size of the scores, size of the bias
    (37, 203, 32, 1.0, 2.0),
    (5, 515, 32, 1.0, 2.0),
    (8, 256, 32, 1.0, 2.0),
    (3, 131, 16, 1.0, 2.0),
    (3, 77, 64, 1.0, 2.0),
    (4, 331, 32, 200.0, 2.0),  # out of range without the maximum
    (4, 331, 32, 1.0, 100.0),  # the bias is shifted
    (1, 1, 32, 1.0, 2.0),
]


@pytest.fixture(params=["triton", "hopper"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """The kernels for any GPU, and those for Hopper where there is one."""
    chosen = choose_backend("triton", torch.device("cuda"))
    if request.param == "triton":
        return replace(chosen, hopper=False)
    if not chosen.hopper:
        pytest.skip("not a Hopper GPU, or another Triton")
    return chosen


@pytest.fixture
def attention() -> TriangleAttention:
    """Triangle attention as this GPU computes it."""
    return triangle_attention.choose(choose_backend("auto", torch.device("cuda")), bf16)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_triangle_attention_is_as_exact_as_torch(
    backend: Backend, case: tuple[int, int, int, float, float]
) -> None:
    inputs = draw_attention(*case)
    expected = equation(*(x.double() for x in inputs))
    got = triangle_attention.choose(backend, bf16)(*inputs)
    assert got.dtype == bf16
    assert error(got, expected) < 1.02 * error(TriangleAttention()(*inputs), expected) + 1e-5


def test_triangle_attention_bears_extreme_biases_and_masks(backend: Backend) -> None:
    q, k, v, bias, mask = draw_attention(6, 300, 32, 1.0, 2.0)
    bias[:, :, 210:230] += 1e4  # far above what the first tiles of keys hold
    bias[:, 5:9] -= 1e4
    mask[:140] = 0
    attention = triangle_attention.choose(backend, bf16)
    expected = equation(*(x.double() for x in (q, k, v, bias, mask)))
    assert error(attention(q, k, v, bias, mask), expected) < 3e-3
    assert attention(q, k, v, bias, torch.zeros_like(mask)).isfinite().all()


def test_triangle_attention_mends_what_leaves_the_range_of_its_kernel(backend: Backend) -> None:
    """One query of one row has scores beyond the range; the tile it is in is done again."""
    q, k, v, bias, mask = draw_attention(5, 130, 32, 1.0, 2.0)
    q[3, 70] *= 300
    attention = triangle_attention.choose(backend, bf16)
    expected = equation(*(x.double() for x in (q, k, v, bias, mask)))
    assert error(attention(q, k, v, bias, mask)[3, 64:128], expected[3, 64:128]) < 3e-3


def test_triangle_attention_in_fp16_is_that_in_bf16(backend: Backend) -> None:
    """Projections give q, k and v in fp16."""
    q, k, v, bias, mask = draw_attention(5, 150, 32, 1.0, 2.0)
    attention = triangle_attention.choose(backend, bf16)
    half = attention(q.half(), k.half(), v.half(), bias, mask)
    assert half.dtype == bf16
    assert torch.equal(half, attention(q, k, v, bias, mask))


@pytest.mark.parametrize("dtype", [bf16, torch.float32])
def test_triangle_attention_takes_a_bias_of_either_type(
    attention: TriangleAttention, dtype: torch.dtype
) -> None:
    q, k, v, bias, mask = draw_attention(5, 150, 32, 1.0, 2.0)
    bias = bias.to(dtype)
    expected = equation(*(x.double() for x in (q, k, v, bias, mask)))
    assert error(attention(q, k, v, bias, mask), expected) < 3e-3


def test_triangle_attention_ignores_padding_keys(attention: TriangleAttention) -> None:
    q, k, v, bias, mask = draw_attention(5, 150, 32, 1.0, 2.0)
    padding = mask[None, :, None, None] == 0
    other = attention(q, k.masked_fill(padding, 30), v.masked_fill(padding, 30), bias, mask)
    assert torch.equal(attention(q, k, v, bias, mask), other)


@pytest.mark.parametrize("case", CASES[:-1], ids=str)
def test_triangle_attention_gradients_follow_the_equation(
    backend: Backend, case: tuple[int, int, int, float, float]
) -> None:
    *inputs, mask = draw_attention(*case)
    weight = draw(*inputs[0].shape, dtype=bf16)

    def gradients(
        function: Callable[..., Tensor], leaves: list[Tensor], mask: Tensor
    ) -> tuple[Tensor, ...]:
        leaves = [x.requires_grad_() for x in leaves]
        return torch.autograd.grad(
            (function(*leaves, mask) * weight.to(leaves[0].dtype)).sum(), leaves
        )

    attention = triangle_attention.choose(backend, bf16)
    expected = gradients(equation, [x.double() for x in inputs], mask.double())
    got = gradients(attention, [x.clone() for x in inputs], mask)
    # where one key takes nearly all the weight, what is left of the gradient is a difference of
    # rounded numbers
    tolerance = 2e-2 if max(case[3:]) > 10 else 6e-3
    for name, g, w in zip("qkvb", got, expected, strict=True):
        assert error(g, w) < tolerance, name


def test_triangle_attention_gradients_repeat_exactly(attention: TriangleAttention) -> None:
    *inputs, mask = draw_attention(9, 150, 32, 1.0, 2.0)
    leaves = [x.requires_grad_() for x in inputs]
    once, again = (
        torch.autograd.grad(attention(*leaves, mask).float().square().sum(), leaves)
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


HEADS = 4
PAIRS = [  # rows, columns, channels, inner channels, is z a view of its transpose
    (29, 203, 128, 128, False),
    (7, 61, 128, 128, True),
    (130, 203, 128, 128, True),  # more tiles of pairs than programs at once
    (40, 200, 128, 128, False),  # steps of 16 bytes, as the kernels for Hopper read them
    (200, 304, 128, 128, True),
    (3, 50, 64, 40, False),
    (2, 33, 100, 24, True),
    (3, 45, 64, 256, False),
]


@dataclass(frozen=True)
class Call:
    """An operation as chosen, its reference, and what they are called with after z."""

    name: str
    kernel: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    args: tuple[Any, ...]  # tensors, then weights

    @property
    def updates_z(self) -> bool:
        return self.name.startswith("add")


class Pairs:
    """Random arguments of every pair update; `transposed` makes z a view of its transpose."""

    def __init__(
        self, I: int, N: int, C: int, K: int, transposed: bool, residual: torch.dtype
    ) -> None:
        self.z = (2 * draw(N, I, C).transpose(0, 1) if transposed else 2 * draw(I, N, C) + 0.3).to(
            residual
        )
        self.mask = draw_mask(N)
        self.row_mask = draw_mask(I)[:, None]
        self.norm = (draw(C), draw(C))
        self.wide = [draw(2 * K, C, dtype=bf16) / C**0.5 for _ in range(2)]
        self.out = draw(C, K, dtype=bf16) / K**0.5
        self.gate_c = draw(C, C, dtype=bf16) / C**0.5
        self.gate_k = draw(K, C, dtype=bf16) / C**0.5
        self.product = draw(K, I + 3, N, dtype=bf16)[:, 1 : I + 1]
        self.norm_out = (draw(K), draw(K))
        self.attended = draw(I, N, K, dtype=bf16)
        self.by_head = draw(HEADS, I, N, K // HEADS, dtype=bf16)
        self.back = draw(C, 2 * K, dtype=bf16) / K**0.5

    def calls(self, backend: Backend) -> list[Call]:
        norm = self.norm
        of_projection = ProjectionWeights(*norm, self.wide[0])
        of_gated = GatedProjectionWeights(*norm, *self.wide)
        of_gated_output = GatedOutputWeights(*norm, *self.norm_out, self.out, self.gate_c)
        of_attention = AttentionOutputWeights(*norm, self.gate_k, self.out)
        of_transition = TransitionWeights(*norm, *self.wide, self.back)
        of_few = ProjectionWeights(*norm, self.wide[0][:4])
        projected = projection.choose(backend, of_projection)
        few = projection.choose(backend, of_few)
        gated = triangle_multiplication.choose_projection(backend, of_gated)
        gated_output = triangle_multiplication.choose_output(backend, of_gated_output)
        attention_output = projection.choose_output(backend, of_attention)
        added = transition.choose(backend, of_transition)
        return [
            Call("gated projection", gated, GatedProjection(), (self.mask, of_gated)),
            Call("of rows", gated, GatedProjection(), (self.row_mask, of_gated)),
            Call("projection", projected, Projection(), (of_projection,)),
            Call(
                "channels first",
                projected.channels_first,
                Projection().channels_first,
                (of_projection,),
            ),
            Call(
                "few channels first",
                few.channels_first,
                Projection().channels_first,
                (of_few,),
            ),
            Call(
                "add gated output", gated_output, AddGatedOutput(), (self.product, of_gated_output)
            ),
            Call(
                "add attention output",
                attention_output,
                AddAttentionOutput(),
                (self.attended, of_attention),
            ),
            Call(
                "heads first",
                partial(projected.heads_first, num_heads=HEADS),
                partial(Projection().heads_first, num_heads=HEADS),
                (of_projection,),
            ),
            Call(
                "add attention output of heads first",
                attention_output.heads_first,
                AddAttentionOutput().heads_first,
                (self.by_head, of_attention),
            ),
            Call("add transition", added, AddTransition(), (of_transition,)),
        ]


def converted(args: tuple[Any, ...], convert: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
    """Every tensor of the arguments and of their weights converted."""
    return tuple(
        convert(x)
        if isinstance(x, Tensor)
        else type(x)(*(convert(getattr(x, field.name)) for field in fields(x)))
        for x in args
    )


def operation(call: Call) -> object:
    """The object that is called, or whose method is."""
    function = call.kernel.func if isinstance(call.kernel, partial) else call.kernel
    return getattr(function, "__self__", function)


def test_choose_takes_a_kernel_for_every_update(backend: Backend) -> None:
    for call in Pairs(*PAIRS[0], bf16).calls(backend):
        kernel = operation(call)
        assert type(kernel).__module__.endswith((".triton", ".hopper")), call.name
        assert type(kernel).__module__.endswith(".hopper") == backend.hopper, call.name
    for call in Pairs(*PAIRS[-1], bf16).calls(backend):  # of other widths
        kernel = operation(call)
        assert not type(kernel).__module__.endswith(".hopper"), call.name


@pytest.mark.parametrize("residual", [torch.float32, bf16])
@pytest.mark.parametrize("sizes", PAIRS, ids=str)
@torch.no_grad()
def test_pair_updates_are_as_exact_as_torch(
    backend: Backend, sizes: tuple[int, int, int, int, bool], residual: torch.dtype
) -> None:
    pairs = Pairs(*sizes, residual)
    for call in pairs.calls(backend):
        z = pairs.z
        expected = call.reference(z.double(), *converted(call.args, Tensor.double))
        torch_error = error(call.reference(z.clone(), *call.args), expected)
        given = z.clone()
        got = call.kernel(given, *call.args)
        assert got.dtype == (residual if call.updates_z else bf16), call.name
        assert (got is given) == call.updates_z, call.name
        assert error(got, expected) < 1.05 * torch_error + 1e-5, call.name


@pytest.mark.parametrize("num_heads", [6, 4])
def test_qkv_is_in_fp16(backend: Backend, num_heads: int) -> None:
    pairs = Pairs(*PAIRS[1], torch.float32)
    stacked = torch.cat([*pairs.wide, pairs.gate_k])[: 96 * num_heads]
    weights = ProjectionWeights(*pairs.norm, stacked)
    q, k, v = projection.choose(backend, weights).qkv([pairs.z], weights, num_heads)
    (exact,) = converted((weights,), Tensor.double)
    expected = Projection()(pairs.z.double(), exact)
    assert (q.dtype, k.dtype, v.dtype) == (torch.float16,) * 3
    parts = expected.unflatten(-1, (3, num_heads, 32)).unbind(-3)
    for got, part in zip((q, k, v), parts, strict=True):
        assert error(got, part) < 3e-3
    assert v.isfinite().all()


def test_qkv_keeps_values_beyond_fp16_finite(backend: Backend) -> None:
    pairs = Pairs(*PAIRS[1], bf16)
    weights = ProjectionWeights(*pairs.norm, pairs.wide[0][:192] * 1e5)
    for x in projection.choose(backend, weights).qkv([pairs.z], weights, num_heads=2):
        assert x.isfinite().all() and x.abs().max() == 65504


def test_under_prepares_a_bias_once_for_all_rows(backend: Backend) -> None:
    q, k, v, bias, mask = draw_attention(9, 150, 32, 1.0, 2.0)
    attention = triangle_attention.choose(backend, bf16)
    with torch.no_grad():
        attend = attention.under(bias, mask)
        for rows in (slice(0, 4), slice(4, 9)):
            got = attend(q[rows], k[rows], v[rows])
            assert torch.equal(got, attention(q[rows], k[rows], v[rows], bias, mask))


def test_pair_updates_have_the_gradients_of_the_reference(backend: Backend) -> None:
    pairs = Pairs(*PAIRS[1], torch.float32)
    for call in pairs.calls(backend):
        z, *args = converted((pairs.z, *call.args), lambda x: x.clone().requires_grad_())
        got = call.kernel(z, *args)
        expected = call.reference(z, *args)
        assert got is not z, call.name
        weight = draw(*got.shape)
        leaves = [z, *(getattr(args[-1], field.name) for field in fields(args[-1]))]
        if call.updates_z:  # the masks of the gated projection want no gradient
            leaves += args[:-1]
        got_gradients, want_gradients = (
            torch.autograd.grad((y * weight).sum(), leaves) for y in (got, expected)
        )
        for a, b in zip(got_gradients, want_gradients, strict=True):
            assert torch.equal(a, b), call.name


def test_describe_names_triton_on_a_gpu() -> None:
    assert choose_backend("auto", torch.device("cuda")).describe().startswith("triton ")


def test_choose_leaves_wide_or_fp32_arrays_in_torch(backend: Backend) -> None:
    z = draw(50, 384)
    norm = (torch.ones(384, device="cuda"), torch.zeros(384, device="cuda"))
    for dtype in (torch.float32, bf16):
        weights = ProjectionWeights(*norm, draw(8, 384, dtype=dtype))
        assert type(projection.choose(backend, weights)) is Projection
    weights = ProjectionWeights(*norm, draw(8, 384))
    got = projection.choose(backend, weights)(z, weights)
    torch.testing.assert_close(got, F.linear(F.layer_norm(z, (384,)), weights.weight))
