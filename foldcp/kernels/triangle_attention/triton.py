"""Attention of many rows under one bias in Triton: no running maximum, and a bias that no layout
changes.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportAttributeAccessIssue=false
# ruff: noqa: RUF005 (kernels cannot unpack a tuple into another)

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from foldcp.kernels.autograd import needs_no_grad
from foldcp.kernels.bias_layout import (
    LOG2E,
    TILE,
    WARPS,
    PreparedBias,
    block_of,
    prepare,
    rows_of,
    to_fp16,
)
from foldcp.kernels.cuda_source import CudaKernel
from foldcp.kernels.pair_tiles import sigmoid
from foldcp.kernels.triangle_attention.backward import gradient
from foldcp.kernels.triangle_attention.hopper import forward as attend_on_hopper
from foldcp.kernels.triangle_attention.hopper import load as load_hopper
from foldcp.kernels.triangle_attention.hopper import readable
from foldcp.kernels.triangle_attention.reference import RowAttention, TriangleAttention
from foldcp.kernels.triton_utils import cdiv, next_power_of_2

ROOM = tl.constexpr(8.0)  # the largest weight of the first tile is 2^-8, and fp16 goes up to 2^16
RANGE = tl.constexpr(60000.0)  # a larger sum of weights may hide a weight that fp16 does not hold
HOPPER_WIDTH = 32  # of heads
SIZES = ["num_rows", "num_queries", "num_keys", "num_heads", "query_tiles", "key_tiles"]
GROUP = 16  # programs of neighbouring rows that run side by side, to meet in the second-level cache


@triton.jit
@no_type_check
def _scores(q, k, bias, scale) -> tl.tensor:
    return tl.dot(q, tl.trans(k)) * scale + bias


@triton.jit
@no_type_check
def _step(q, k, v, bias, out, total, top, scale) -> tuple[tl.tensor, tl.tensor]:
    p = tl.exp2(_scores(q, k, bias, scale) - top[:, None])
    # Sums stay within a thread; the four threads that share a row are added up once, at the end.
    total += tl.sum(tl.sum(tl.reshape(p, (TILE, TILE // 8, 4, 2)), 3), 1)
    return tl.dot(p.to(v.dtype), v, out), total


@triton.jit
@no_type_check
def _with_maximum(
    q,
    K,
    V,
    B,
    num_keys,
    num_tiles,
    stride_k,
    stride_v,
    scale,
    D: tl.constexpr,
    BD: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Attention with a running maximum, for any range of scores."""
    top = tl.full((TILE,), -float("inf"), tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    out = tl.zeros((TILE, BD), tl.float32)
    for tile in tl.range(num_tiles, num_stages=1):
        k = rows_of(K, tile * TILE, num_keys, stride_k, D, BD, False)
        v = rows_of(V, tile * TILE, num_keys, stride_v, D, BD, False)
        bias = block_of(tl.load(B + tile * TILE * TILE)).to(tl.float32) * LOG2E
        s = _scores(q, k, bias, scale)
        new = tl.maximum(top, tl.max(s, 1))
        p = tl.exp2(s - new[:, None])
        fade = tl.exp2(top - new)
        total = total * fade + tl.sum(p, 1)
        out = tl.dot(p.to(v.dtype), v, out * fade[:, None])
        top = new
    return out, total, top


@triton.jit
@no_type_check
def _store(
    out,
    total,
    top,
    OUT,
    LSE,
    GATE,
    tile,
    size,
    stride,
    gate_stride,
    D: tl.constexpr,
    BD: tl.constexpr,
    WANT_LSE: tl.constexpr,
    GATED: tl.constexpr,
) -> None:
    """A tile of queries of one row and head."""
    token = tile * TILE + tl.arange(0, TILE)
    cols = tl.arange(0, BD)
    inside = (token < size)[:, None] & (cols < D)[None, :]
    out = out / total[:, None]
    if GATED:
        place = token[:, None] * gate_stride + cols[None, :]
        out *= sigmoid(tl.load(GATE + place, mask=inside, other=0.0).to(tl.float32))
    out = out.to(OUT.dtype.element_ty)
    tl.store(OUT + token[:, None] * stride + cols[None, :], out, mask=inside)
    if WANT_LSE:
        tl.store(LSE + token, top + tl.log2(total), mask=token < size)


@triton.jit
@no_type_check
def _apply_gate(
    OUT, GATE, tile, size, stride, gate_stride, D: tl.constexpr, BD: tl.constexpr
) -> None:
    """Of a tile of queries of one row and head."""
    token = tile * TILE + tl.arange(0, TILE)
    cols = tl.arange(0, BD)
    inside = (token < size)[:, None] & (cols < D)[None, :]
    place = token[:, None] * stride + cols[None, :]
    gate_place = token[:, None] * gate_stride + cols[None, :]
    out = tl.load(OUT + place, mask=inside, other=0.0).to(tl.float32)
    out *= sigmoid(tl.load(GATE + gate_place, mask=inside, other=0.0).to(tl.float32))
    tl.store(OUT + place, out.to(OUT.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def _finish(
    Q, K, V, BIAS, OUT, LSE, GATE, REDO, num_rows, num_queries, num_keys, num_heads, query_tiles,
    key_tiles, scale,
    qi, qn, qh, ki, kn, kh, vi, vn, vh, oi, on, oh, gi, gn, gh,
    D: tl.constexpr, BD: tl.constexpr, ROWS: tl.constexpr, WANT_LSE: tl.constexpr,
    GATED: tl.constexpr,
) -> None:  # fmt: skip
    """One head and 64 queries of up to ROWS rows, after the kernel for Hopper: under a running
    maximum where REDO says so, and gated.
    """
    tile = tl.program_id(0)
    head = tl.program_id(1)
    first = tl.program_id(2) * ROWS
    rows = first + tl.arange(0, ROWS)
    wanted = tl.load(
        REDO + (rows * num_heads + head) * query_tiles + tile,
        mask=rows < num_rows,
        other=0,
    )
    if GATED or tl.max(wanted, 0) > 0:
        B = (
            BIAS
            + (head.to(tl.int64) * query_tiles + tile) * key_tiles * TILE * TILE
            + tl.arange(0, TILE * TILE)
        )
        for index in range(first, tl.minimum(first + ROWS, num_rows)):
            row = tl.cast(index, tl.int64)
            at = OUT + row * oi + head * oh
            gate = GATE + row * gi + head * gh
            if tl.load(REDO + (index * num_heads + head) * query_tiles + tile) > 0:
                q = rows_of(Q + row * qi + head * qh, tile * TILE, num_queries, qn, D, BD, False)
                k = K + row * ki + head * kh
                v = V + row * vi + head * vh
                out, total, top = _with_maximum(
                    q, k, v, B, num_keys, key_tiles, kn, vn, scale, D, BD
                )
                lse = LSE + (row * num_heads + head) * num_queries
                _store(
                    out, total, top, at, lse, gate, tile, num_queries, on, gn, D, BD, WANT_LSE,
                    GATED,
                )  # fmt: skip
            elif GATED:
                _apply_gate(at, gate, tile, num_queries, on, gn, D, BD)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def _forward(
    Q, K, V, BIAS, OUT, LSE, GATE, num_rows, num_queries, num_keys, num_heads, query_tiles,
    key_tiles, scale,
    qi, qn, qh, ki, kn, kh, vi, vn, vh, oi, on, oh, gi, gn, gh,
    D: tl.constexpr, BD: tl.constexpr, SHARE: tl.constexpr, GROUP: tl.constexpr,
    WANT_LSE: tl.constexpr, EVEN: tl.constexpr, GATED: tl.constexpr,
) -> None:  # fmt: skip
    """One head, 64 queries, SHARE rows. The maximum of the first tile serves for all, unless the
    sum says no. Rows may be of several blocks of tokens, which do not see each other, each with a
    bias of its own.

    Weights are fp16, which is 8 times more exact than bf16: what they may grow beyond the first
    tile, they have room for. A sum too large for that room is seen at the end, and the tile done
    again, under a running maximum.
    """
    num_groups = tl.cdiv(num_rows, SHARE)
    of_all = tl.program_id(0) // (num_groups * query_tiles)
    block = (of_all // num_heads).to(tl.int64)
    head = of_all % num_heads
    Q += block * num_queries * qn
    K += block * num_keys * kn
    V += block * num_keys * vn
    OUT += block * num_queries * on
    GATE += block * num_queries * gn
    place = tl.program_id(0) % (num_groups * query_tiles)
    chunk = place // (GROUP * query_tiles)
    size = tl.minimum(num_groups - chunk * GROUP, GROUP)
    rest = place - chunk * GROUP * query_tiles
    tile = rest // size
    first = (chunk * GROUP + rest % size) * SHARE
    B = (
        BIAS
        + (of_all.to(tl.int64) * query_tiles + tile) * key_tiles * TILE * TILE
        + tl.arange(0, TILE * TILE)
    )
    queries = ()
    keys = ()
    values = ()
    outs = ()
    totals = ()
    tops = ()
    bias = block_of(tl.load(B)).to(tl.float32) * LOG2E
    for r in tl.static_range(SHARE):
        row = tl.minimum(first + r, num_rows - 1).to(tl.int64)
        queries = queries + (
            rows_of(Q + row * qi + head * qh, tile * TILE, num_queries, qn, D, BD, False),
        )
        keys = keys + (K + row * ki + head * kh,)
        values = values + (V + row * vi + head * vh,)
        outs = outs + (tl.zeros((TILE, BD), tl.float32),)
        totals = totals + (tl.zeros((TILE, 4), tl.float32),)
        s = _scores(queries[r], rows_of(keys[r], 0, num_keys, kn, D, BD, False), bias, scale)
        tops = tops + (tl.max(s, 1) + ROOM,)
    for other in tl.range(key_tiles, num_stages=3):
        bias = block_of(tl.load(B + other * TILE * TILE)).to(tl.float32) * LOG2E
        new_outs = ()
        new_totals = ()
        for r in tl.static_range(SHARE):
            k = rows_of(keys[r], other * TILE, num_keys, kn, D, BD, EVEN)
            v = rows_of(values[r], other * TILE, num_keys, vn, D, BD, EVEN)
            out, total = _step(queries[r], k, v, bias, outs[r], totals[r], tops[r], scale)
            new_outs = new_outs + (out,)
            new_totals = new_totals + (total,)
        outs = new_outs
        totals = new_totals
    for r in tl.static_range(SHARE):
        out = outs[r]
        total = tl.sum(totals[r], 1)
        top = tops[r]
        if tl.min((total < RANGE).to(tl.int32), 0) == 0:
            out, total, top = _with_maximum(
                queries[r], keys[r], values[r], B, num_keys, key_tiles, kn, vn, scale, D, BD
            )  # fmt: skip
        row = (first + r).to(tl.int64)
        at = OUT + row * oi + head * oh
        lse = LSE + (row * num_heads + head) * num_queries
        size = tl.where(first + r < num_rows, num_queries, 0)
        gate = GATE + row * gi + head * gh
        _store(out, total, top, at, lse, gate, tile, size, on, gn, D, BD, WANT_LSE, GATED)


def forward(
    q: Float[Tensor, "R N H D"],
    k: Float[Tensor, "R N H D"],
    v: Float[Tensor, "R N H D"],
    bias: PreparedBias,
    want_lse: bool = False,
    hopper: CudaKernel | None = None,
) -> tuple[Float[Tensor, "R N H D"], Float[Tensor, "R H N"] | None]:
    """As `forward_in_triton`; with a kernel for Hopper that one runs, where heads are as wide as it
    is made for.
    """
    if hopper is None or q.shape[-1] != HOPPER_WIDTH:
        return forward_in_triton(q, k, v, bias.tiles, want_lse=want_lse)
    return forward_on_hopper(hopper, q, k, v, bias, want_lse=want_lse)


def forward_in_triton(
    q: Float[Tensor, "R I H D"],
    k: Float[Tensor, "R N H D"],
    v: Float[Tensor, "R N H D"],
    tiles: Float[Tensor, "G A B T"],
    gate: Float[Tensor, "R I H D"] | None = None,
    want_lse: bool = False,
    out_dtype: torch.dtype = torch.bfloat16,
) -> tuple[Float[Tensor, "R I H D"], Float[Tensor, "R H I"] | None]:
    """The output in `out_dtype` and, if wanted, the base-2 logarithm of the sum of each query's
    exponentials; q, k and v in bf16 or fp16. The output is multiplied by sigmoid(gate).

    With G / H biases of H heads each, queries and keys are as many blocks, one after the other,
    that do not see each other; then without the logarithm.
    """
    num_rows, num_queries, num_heads, width = q.shape
    (num_biases, query_tiles, key_tiles, _) = tiles.shape
    num_blocks = num_biases // num_heads
    assert num_blocks == 1 or not want_lse
    num_queries //= num_blocks
    num_keys = k.shape[1] // num_blocks
    block = max(16, next_power_of_2(width))
    share = 2 if block <= 32 else 1  # rows in one program: as many as the registers hold
    gated = gate is not None
    q, k, v, gate = (
        x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v, q if gate is None else gate)
    )
    out, lse = _outputs(q, want_lse, out_dtype)
    v = to_fp16(v)
    _forward[(num_biases * query_tiles * cdiv(num_rows, share),)](
        q, k, v, tiles, out, out if lse is None else lse, gate,
        num_rows, num_queries, num_keys, num_heads, query_tiles, key_tiles,
        LOG2E.value * width**-0.5,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3], *gate.stride()[:3],
        D=width, BD=block, SHARE=share, GROUP=GROUP, WANT_LSE=want_lse, GATED=gated,
        EVEN=num_keys % TILE.value == 0 and block == width, num_warps=WARPS.value,
    )  # fmt: skip
    return out, lse


def _outputs(
    q: Float[Tensor, "R I H D"], want_lse: bool, dtype: torch.dtype = torch.bfloat16
) -> tuple[Float[Tensor, "R I H D"], Float[Tensor, "R H I"] | None]:
    num_rows, num_queries, num_heads, _ = q.shape
    out = torch.empty(q.shape, dtype=dtype, device=q.device)
    if not want_lse:
        return out, None
    shape = (num_rows, num_heads, num_queries)
    return out, torch.empty(shape, dtype=torch.float32, device=q.device)


def forward_on_hopper(
    kernel: CudaKernel,
    q: Float[Tensor, "R I H D"],
    k: Float[Tensor, "R N H D"],
    v: Float[Tensor, "R N H D"],
    bias: PreparedBias,
    gate: Float[Tensor, "R I H D"] | None = None,
    want_lse: bool = False,
) -> tuple[Float[Tensor, "R I H D"], Float[Tensor, "R H I"] | None]:
    """`forward_in_triton`, under one bias, with the kernel for Hopper for heads of this width,
    which leaves to `_finish` what is out of its range, and the gates.
    """
    gated = gate is not None
    q, k, v = (readable(to_fp16(x)) for x in (q, k, v))
    gate = q if gate is None else gate if gate.stride(-1) == 1 else gate.contiguous()
    out, lse = _outputs(q, want_lse)
    num_rows, num_queries, num_heads, width = q.shape
    _, query_tiles, key_tiles, _ = bias.tiles.shape
    redo = attend_on_hopper(kernel, q, k, v, bias, out, lse)
    rows = 1 if gated else 32  # of a program, most of which have nothing to do without gates
    _finish[(query_tiles, num_heads, cdiv(num_rows, rows))](
        q, k, v, bias.tiles, out, out if lse is None else lse, gate, redo,
        num_rows, num_queries, k.shape[1], num_heads, query_tiles, key_tiles,
        LOG2E.value * width**-0.5, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        *out.stride()[:3], *gate.stride()[:3],
        D=width, BD=next_power_of_2(width), ROWS=rows, WANT_LSE=want_lse, GATED=gated,
        num_warps=WARPS.value,
    )  # fmt: skip
    return out, lse


class _TriangleAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor,
        mask: Tensor,
        hopper: CudaKernel | None,
    ) -> Tensor:
        out, lse = forward(q, k, v, prepare(bias, mask), want_lse=True, hopper=hopper)
        ctx.save_for_backward(q, k, v, bias, mask, out, lse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, mask, out, lse = ctx.saved_tensors
        tiles = prepare(bias, mask).tiles
        transposed = prepare(bias, mask, transposed=True).tiles
        dq, dk, dv, db = gradient(q, k, v, tiles, transposed, out, lse, dout.contiguous())
        return dq, dk, dv, db.to(bias.dtype), None, None


class TriangleAttentionTriton(TriangleAttention):
    """Triangle attention in one kernel, and its gradient in three."""

    def __init__(self, hopper: bool) -> None:
        self.hopper = load_hopper(HOPPER_WIDTH) if hopper else None

    def __call__(
        self,
        q: Float[Tensor, "I N H D"],
        k: Float[Tensor, "I N H D"],
        v: Float[Tensor, "I N H D"],
        bias: Float[Tensor, "H N N"],
        mask: Float[Tensor, " N"],
    ) -> Float[Tensor, "I N H D"]:
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        if needs_no_grad(q, k, v, bias):
            return forward(q, k, v, prepare(bias, mask), hopper=self.hopper)[0]
        return _TriangleAttention.apply(q, k, v, bias, mask, self.hopper)

    def under(self, bias: Float[Tensor, "H N N"], mask: Float[Tensor, " N"]) -> RowAttention:
        if torch.is_grad_enabled():
            return super().under(bias, mask)
        prepared = prepare(bias, mask)
        return lambda q, k, v: forward(q, k, v, prepared, hopper=self.hopper)[0]

    def bytes_per_row(self, N: int, channels: int, inner: int, dtype: torch.dtype) -> int:
        """Bytes of q, k, v and what attention makes of them, of a row of N pairs."""
        return N * 4 * inner * dtype.itemsize
