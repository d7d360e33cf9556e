"""The Triton kernels against float64 equations on a GPU: odd sizes, real masks, strides, and
gradients.

Run on a machine with one:  python -m pytest tests/test_kernels_gpu.py -m gpu
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foldcp.kernels import dispatch as picker
from foldcp.kernels.projections import (
    add_attention_output,
    add_attention_output_reference,
    project,
    project_attention,
    project_channels_first,
    project_channels_first_reference,
    project_reference,
)
from foldcp.kernels.transition import add_transition, add_transition_reference
from foldcp.kernels.triangle_attention import (
    attention_under,
    triangle_attention,
    triangle_attention_reference,
)
from foldcp.kernels.triangle_multiply import (
    add_gated_output,
    add_gated_output_reference,
    gated_projection,
    gated_projection_reference,
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


def error(got: Tensor, want: Tensor) -> float:
    return ((got.double() - want).norm() / want.norm()).item()


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
def chip(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel for any chip, and that for Hopper where there is one."""
    if request.param == "triton":
        monkeypatch.setattr(picker, "_on_hopper", lambda: False)
    elif not picker.hopper(torch.device("cuda")):
        pytest.skip("not a Hopper chip, or another Triton")


@pytest.mark.usefixtures("chip")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_triangle_attention_is_as_exact_as_torch(
    case: tuple[int, int, int, float, float],
) -> None:
    inputs = draw_attention(*case)
    want = equation(*(x.double() for x in inputs))
    got = triangle_attention(*inputs)
    assert got.dtype == bf16
    assert error(got, want) < 1.02 * error(triangle_attention_reference(*inputs), want) + 1e-5


@pytest.mark.parametrize("dtype", [bf16, torch.float32])
def test_triangle_attention_takes_a_bias_of_either_type(dtype: torch.dtype) -> None:
    q, k, v, bias, mask = draw_attention(5, 150, 32, 1.0, 2.0)
    bias = bias.to(dtype)
    assert (
        error(
            triangle_attention(q, k, v, bias, mask),
            equation(*(x.double() for x in (q, k, v, bias, mask))),
        )
        < 3e-3
    )


def test_padding_keys_have_no_say() -> None:
    q, k, v, bias, mask = draw_attention(5, 150, 32, 1.0, 2.0)
    padding = mask[None, :, None, None] == 0
    other = triangle_attention(
        q, k.masked_fill(padding, 30), v.masked_fill(padding, 30), bias, mask
    )
    assert torch.equal(triangle_attention(q, k, v, bias, mask), other)


@pytest.mark.usefixtures("chip")
@pytest.mark.parametrize("case", CASES[:-1], ids=str)
def test_triangle_attention_gradients(case: tuple[int, int, int, float, float]) -> None:
    *inputs, mask = draw_attention(*case)
    weight = draw(*inputs[0].shape, dtype=bf16)

    def gradients(function, leaves: list[Tensor], mask: Tensor) -> tuple[Tensor, ...]:
        leaves = [x.requires_grad_() for x in leaves]
        return torch.autograd.grad(
            (function(*leaves, mask) * weight.to(leaves[0].dtype)).sum(), leaves
        )

    want = gradients(equation, [x.double() for x in inputs], mask.double())
    got = gradients(triangle_attention, [x.clone() for x in inputs], mask)
    # where one key takes nearly all the weight, what is left of the gradient is a difference of
    # rounded numbers
    tolerance = 2e-2 if max(case[3:]) > 10 else 6e-3
    for name, g, w in zip("qkvb", got, want, strict=True):
        assert error(g, w) < tolerance, name


def test_repeats_exactly() -> None:
    *inputs, mask = draw_attention(9, 150, 32, 1.0, 2.0)
    leaves = [x.requires_grad_() for x in inputs]
    once, again = (
        torch.autograd.grad(triangle_attention(*leaves, mask).float().square().sum(), leaves)
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


PAIRS = [  # rows, columns, channels, inner channels, is z a view of its transpose
    (29, 203, 128, 128, False),
    (7, 61, 128, 128, True),
    (130, 203, 128, 128, True),  # more tiles of pairs than programs at once
    (3, 50, 64, 40, False),
    (2, 33, 100, 24, True),
    (3, 45, 64, 256, False),
]


class Pairs:
    """Fresh operands of every pair update; `transposed` makes z a view of its transpose."""

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
        self.back = draw(C, 2 * K, dtype=bf16) / K**0.5

    def calls(self) -> list[tuple]:
        """Kernel, reference, operands after z."""
        n = self.norm
        return [
            (gated_projection, gated_projection_reference, (self.mask, *n, *self.wide)),
            (
                gated_projection,
                gated_projection_reference,
                (self.row_mask, *n, *self.wide),
            ),
            (project, project_reference, (*n, self.wide[0])),
            (
                project_channels_first,
                project_channels_first_reference,
                (*n, self.wide[0]),
            ),
            (
                add_gated_output,
                add_gated_output_reference,
                (self.product, *n, *self.norm_out, self.out, self.gate_c),
            ),
            (
                add_attention_output,
                add_attention_output_reference,
                (self.attended, *n, self.gate_k, self.out),
            ),
            (add_transition, add_transition_reference, (*n, *self.wide, self.back)),
        ]


@pytest.mark.usefixtures("chip")
@pytest.mark.parametrize("residual", [torch.float32, bf16])
@pytest.mark.parametrize("sizes", PAIRS, ids=str)
def test_pair_updates(sizes: tuple[int, int, int, int, bool], residual: torch.dtype) -> None:
    pairs = Pairs(*sizes, residual)
    for kernel, reference, operands in pairs.calls():
        z = pairs.z
        want = reference(z.double(), *(x.double() for x in operands))
        torch_ = error(reference(z.clone(), *operands), want)
        mine = z.clone()
        got = kernel(mine, *operands)
        assert got.dtype == (residual if kernel.__name__.startswith("add") else bf16), (
            kernel.__name__
        )
        assert (got is mine) == kernel.__name__.startswith("add"), kernel.__name__
        assert error(got, want) < 1.05 * torch_ + 1e-5, kernel.__name__


def test_attention_gets_its_values_in_fp16() -> None:
    pairs = Pairs(*PAIRS[1], torch.float32)
    weight = torch.cat([*pairs.wide, pairs.gate_k])[:576]
    q, k, v = project_attention([pairs.z], *pairs.norm, weight, num_heads=6)
    want = project_reference(pairs.z.double(), *(x.double() for x in (*pairs.norm, weight)))
    assert (q.dtype, k.dtype, v.dtype) == (bf16, bf16, torch.float16)
    for got, part in zip((q, k, v), want.unflatten(-1, (3, 6, 32)).unbind(-3), strict=True):
        assert error(got, part) < 3e-3
    assert v.isfinite().all()


def test_values_beyond_fp16_stay_finite() -> None:
    pairs = Pairs(*PAIRS[1], bf16)
    weight = pairs.wide[0][:192] * 1e5
    *_, v = project_attention([pairs.z], *pairs.norm, weight, num_heads=2)
    assert v.isfinite().all() and v.abs().max() == 65504


@pytest.mark.usefixtures("chip")
def test_a_bias_prepared_once_serves_all_rows() -> None:
    q, k, v, bias, mask = draw_attention(9, 150, 32, 1.0, 2.0)
    with torch.no_grad():
        attention = attention_under(bias, mask)
        for rows in (slice(0, 4), slice(4, 9)):
            got = attention(q[rows], k[rows], v[rows])
            assert torch.equal(got, triangle_attention(q[rows], k[rows], v[rows], bias, mask))


def test_pair_updates_have_gradients() -> None:
    pairs = Pairs(*PAIRS[1], torch.float32)
    for kernel, reference, operands in pairs.calls():
        leaves = [x.clone().requires_grad_() for x in (pairs.z, *operands)]
        got = kernel(*leaves)
        want = reference(*leaves)
        assert got is not leaves[0], kernel.__name__
        weight = draw(*got.shape)
        asked = [x for i, x in enumerate(leaves) if not (kernel is gated_projection and i == 1)]
        pairs_ = zip(
            *(torch.autograd.grad((y * weight).sum(), asked) for y in (got, want)),
            strict=True,
        )
        assert all(torch.equal(a, b) for a, b in pairs_), kernel.__name__


def test_the_choice_is_recorded() -> None:
    z = draw(2, 3, 128)
    project(
        z,
        torch.ones(128, device="cuda"),
        torch.zeros(128, device="cuda"),
        draw(8, 128, dtype=bf16),
    )
    assert "cuda: triton" in picker.describe()


def test_wide_or_fp32_arithmetic_stays_in_torch() -> None:
    z = draw(50, 384)
    w = torch.ones(384, device="cuda")
    b = torch.zeros(384, device="cuda")
    weight = draw(8, 384)
    torch.testing.assert_close(project(z, w, b, weight), F.linear(F.layer_norm(z, (384,)), weight))
