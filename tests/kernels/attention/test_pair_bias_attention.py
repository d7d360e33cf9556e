"""Pair-bias attention against its equation in float64; on a GPU also the Triton kernel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.kernels import pair_bias_attention
from foldcp.kernels.dispatch import choose_backend
from foldcp.kernels.pair_bias_attention import PairBiasAttention
from foldcp.model.diffusion.score_model import PreparedTokenAttention, TokenAttention
from tests.support.distributed import GPU, on_devices

bf16 = torch.bfloat16
TOLERANCE = {("cpu", torch.float32): 2e-6, ("cuda", torch.float32): 1e-5}
SHAPES = pytest.mark.parametrize(
    ("num_samples", "num_queries", "num_tokens", "heads", "width"),
    [(5, 37, 203, 16, 48), (1, 130, 130, 3, 24), (3, 64, 256, 2, 64), (3, 5, 13, 4, 6)],
)


def error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected).norm() / expected.norm())


def chosen(device: str, dtype: torch.dtype, width: int) -> PairBiasAttention:
    backend = choose_backend("auto", torch.device(device))
    return pair_bias_attention.choose(backend, dtype, width)


def draw(
    num_samples: int,
    num_queries: int,
    num_tokens: int,
    heads: int,
    width: int,
    dtype: torch.dtype,
    device: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """q, k, v, gate, bias, mask; keys beside values, gates beside queries, channels of the bias
    last.
    """
    torch.manual_seed(0)
    queries = torch.randn(num_samples, num_queries, 2, heads, width, device=device).to(dtype)
    q, gate = queries.unbind(2)
    kv = torch.randn(num_samples, num_tokens, 2, heads, width, device=device).to(dtype)
    k, v = kv.unbind(2)
    bias = torch.randn(num_queries, num_tokens, heads, device=device).to(dtype).permute(2, 0, 1)
    mask = (torch.rand(num_tokens, device=device) < 0.85).float()
    mask[0] = 0.0
    mask[-1] = 1.0
    return q, k, v, gate, bias, mask


def equation(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    width = q.shape[-1]
    scores = torch.einsum("mihd,mjhd->mhij", q.double(), k.double()) * width**-0.5 + bias.double()
    weights = (scores - 1e9 * (1 - mask.double())).softmax(-1)
    return gate.double().sigmoid() * torch.einsum("mhij,mjhd->mihd", weights, v.double())


@on_devices
@SHAPES
@pytest.mark.parametrize("dtype", [torch.float32, bf16])
def test_pair_bias_attention_follows_its_equation(
    num_samples: int,
    num_queries: int,
    num_tokens: int,
    heads: int,
    width: int,
    dtype: torch.dtype,
    device: str,
) -> None:
    operands = draw(num_samples, num_queries, num_tokens, heads, width, dtype, device)
    attention = chosen(device, dtype, width)
    expected = equation(*operands)
    got = attention(*operands)
    assert got.dtype == dtype
    assert error(got, expected) < TOLERANCE.get((device, dtype), 1e-2)
    assert error(got, expected) < 1.15 * error(PairBiasAttention()(*operands), expected) + 1e-5


@on_devices
@SHAPES
def test_fp16_under_a_bias_in_bf16(
    num_samples: int, num_queries: int, num_tokens: int, heads: int, width: int, device: str
) -> None:
    *qkvg, bias, mask = draw(num_samples, num_queries, num_tokens, heads, width, bf16, device)
    q, k, v, gate = (x.half() for x in qkvg)
    got = chosen(device, bf16, width)(q, k, v, gate, bias, mask)
    assert got.dtype == torch.float16
    assert error(got, equation(q, k, v, gate, bias, mask)) < 1e-3


@pytest.mark.parametrize("device", [GPU])
@pytest.mark.parametrize("num_queries", [37, 512])  # the latter with the kernel for Hopper
def test_biases_of_each_step_give_the_bits_of_those_that_are_kept(
    num_queries: int, device: str
) -> None:
    *qkvg, bias, mask = draw(5, num_queries, num_queries, 16, 48, bf16, device)
    attention = chosen(device, bf16, 48)
    q, k, v, gate = (x.to(attention.input_dtype(bf16)) for x in qkvg)
    cp = ContextParallel()
    attends = (
        TokenAttention(cp, attention, [bias], 0, mask, bf16),
        PreparedTokenAttention(cp, attention.prepare(bias, mask)),
    )
    with torch.inference_mode():
        got, expected = (attend(q, torch.stack([k, v], 2), gate) for attend in attends)
    assert got.dtype == expected.dtype
    assert torch.equal(got, expected)


@pytest.mark.parametrize("device", [GPU])
@pytest.mark.parametrize(
    ("num_samples", "num_queries", "num_tokens", "heads"),
    [(2, 64, 64, 1), (5, 513, 1027, 16), (3, 300, 300, 5), (4, 37, 2050, 3), (1, 2050, 70, 3)],
)
@pytest.mark.parametrize("kind", ["plain", "steep", "far", "masked", "fp16"])
def test_heads_of_48_channels_on_hopper(
    num_samples: int,
    num_queries: int,
    num_tokens: int,
    heads: int,
    kind: str,
    device: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of steep scores the kernel leaves some to another; biases of 1e4 and rows without a key are
    what no sum of exponentials holds.
    """
    if torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("for Hopper")
    q, k, v, gate, bias, mask = draw(num_samples, num_queries, num_tokens, heads, 48, bf16, device)
    if kind == "steep":
        q = 20 * q
    elif kind == "far":
        bias = torch.where(bias > 1.5, 1e4 * bias, bias).to(bf16)
    elif kind == "masked":
        mask = torch.zeros_like(mask)
    elif kind == "fp16":
        q, k, v, gate = (x.half() for x in (q, k, v, gate))
    monkeypatch.setattr("foldcp.kernels.pair_bias_attention.triton.MIN_WORKS", 0)
    got = chosen(device, bf16, 48).prepare(bias, mask)(q, k, v, gate)
    expected = equation(q, k, v, gate, bias, mask)
    assert got.dtype == bf16 and got.isfinite().all()
    reference = PairBiasAttention()(*(x.bfloat16() for x in (q, k, v, gate)), bias, mask)
    assert error(got, expected) < 1.3 * error(reference, expected) + 5e-4


@on_devices
@SHAPES
@pytest.mark.parametrize("dtype", [torch.float32, bf16])
def test_prepare_gives_the_attention_under_a_bias(
    num_samples: int,
    num_queries: int,
    num_tokens: int,
    heads: int,
    width: int,
    dtype: torch.dtype,
    device: str,
) -> None:
    *qkvg, bias, mask = draw(num_samples, num_queries, num_tokens, heads, width, dtype, device)
    attention = chosen(device, dtype, width)
    under_bias = attention.prepare(bias, mask)
    assert torch.equal(under_bias(*qkvg), attention(*qkvg, bias, mask))


@on_devices
@SHAPES
@pytest.mark.parametrize("dtype", [torch.float32, bf16])
def test_packed_blocks_attend_each_within_itself(
    num_samples: int,
    num_queries: int,
    num_tokens: int,
    heads: int,
    width: int,
    dtype: torch.dtype,
    device: str,
) -> None:
    """Of queries with gaps between them in memory, as they are beside keys and values."""
    blocks = []
    for seed in range(3):
        operands = draw(num_samples, num_queries, num_tokens, heads, width, dtype, device)
        torch.manual_seed(seed)
        blocks.append([x + torch.randn_like(x) if x.dim() > 1 else x for x in operands])
    blocks[1][5][:] = 1.0
    blocks[2][4] *= 30
    attention = chosen(device, dtype, width)
    prepared = [attention.prepare(bias, mask) for *_, bias, mask in blocks]
    q, k, v, gate = (torch.cat([block[i] for block in blocks], 1) for i in range(4))
    q, gate = torch.stack([q, gate], 2).unbind(2)
    k, v = torch.stack([k, v], 2).unbind(2)
    got = type(prepared[0]).packed(prepared)(q, k, v, gate)
    for block, own in zip(blocks, got.chunk(3, 1), strict=True):
        expected = equation(*block)
        assert error(own, expected) < TOLERANCE.get((device, dtype), 1e-2)
        assert error(own, expected) < 1.02 * error(attention(*block), expected) + 1e-5
