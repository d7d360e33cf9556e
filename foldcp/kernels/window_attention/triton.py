"""Window attention in Triton: a program computes one window of one sample and head, straight from
the atoms.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import with_reference_backward
from foldcp.kernels.pair_tiles import saturated_fp16, sigmoid
from foldcp.kernels.triton_utils import next_power_of_2
from foldcp.kernels.window_attention.reference import WindowAttention

QUERIES = tl.constexpr(32)
KEYS = tl.constexpr(128)
MARGIN = tl.constexpr(48)
MASKED = tl.constexpr(-1e6)
WARPS = 2  # of a window; with four it takes 1.6 times as long


@triton.jit
@no_type_check
def _forward(
    Q, K, V, GATE, BIAS, MASK, OUT, num_atoms, num_heads,
    q_m, q_a, q_h, k_m, k_a, k_h, v_m, v_a, v_h, g_m, g_a, g_h, b_k, b_h, b_q, o_m, o_a, o_h,
    scale, D: tl.constexpr, BD: tl.constexpr,
) -> None:  # fmt: skip
    window = tl.program_id(0)
    other = tl.program_id(1)
    sample = (other // num_heads).to(tl.int64)
    head = (other % num_heads).to(tl.int64)
    query = window.to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    key = window.to(tl.int64) * QUERIES - MARGIN + tl.arange(0, KEYS)
    channel = tl.arange(0, BD)
    inside = (key >= 0) & (key < num_atoms)
    wide = channel[None, :] < D
    q = tl.load(
        Q + sample * q_m + head * q_h + query[:, None] * q_a + channel[None, :],
        mask=wide,
        other=0,
    )
    there = inside[:, None] & wide
    k = tl.load(
        K + sample * k_m + head * k_h + key[:, None] * k_a + channel[None, :],
        mask=there,
        other=0,
    )
    v = tl.load(
        V + sample * v_m + head * v_h + key[:, None] * v_a + channel[None, :],
        mask=there,
        other=0,
    )
    place = tl.arange(0, QUERIES)[:, None] * b_q + tl.arange(0, KEYS)[None, :]
    score = tl.load(BIAS + window.to(tl.int64) * b_k + head * b_h + place).to(tl.float32)
    real = tl.load(MASK + key, mask=inside, other=0).to(tl.float32)
    score += tl.dot(q, tl.trans(k)) * scale + (MASKED * (1 - real))[None, :]
    weight = tl.exp(score - tl.max(score, 1)[:, None])
    # fp16 holds bf16 values exactly up to its largest, and weights eight times as finely.
    values = saturated_fp16(v.to(tl.float32))
    out = tl.dot(weight.to(tl.float16), values) / tl.sum(weight, 1)[:, None]
    gate = tl.load(
        GATE + sample * g_m + head * g_h + query[:, None] * g_a + channel[None, :],
        mask=wide,
        other=0,
    )
    out *= sigmoid(gate.to(tl.float32))
    tl.store(
        OUT + sample * o_m + head * o_h + query[:, None] * o_a + channel[None, :],
        out.to(v.dtype),
        mask=wide,
    )


class WindowAttentionTriton(WindowAttention):
    """Window attention in one kernel for bf16, with the gradient of the reference."""

    def __call__(
        self,
        q: Float[Tensor, "M A H D"],
        k: Float[Tensor, "M A H D"],
        v: Float[Tensor, "M A H D"],
        gate: Float[Tensor, "M A H D"],
        bias: Float[Tensor, "K H 32 128"],
        mask: Float[Tensor, " A"],
    ) -> Float[Tensor, "M A H D"]:
        return with_reference_backward(forward, WindowAttention(), q, k, v, gate, bias, mask)


def forward(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """Window attention; channels, and the keys of the bias, are adjacent or become so."""
    M, A, H, D = q.shape
    q, k, v, gate, bias = (
        x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v, gate, bias)
    )
    out = v.new_empty((M, A, H, D))
    num_windows = A // QUERIES.value
    block = max(16, next_power_of_2(D))
    _forward[(num_windows, M * H)](
        q, k, v, gate, bias, mask.contiguous(), out, A, H,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *gate.stride()[:3],
        *bias.stride()[:3], *out.stride()[:3],
        D**-0.5, D=D, BD=block, num_warps=WARPS,
    )  # fmt: skip
    return out
