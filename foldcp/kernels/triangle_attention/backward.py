"""The gradient of triangle attention in Triton: three kernels, each sums in one order, so
results repeat.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import no_type_check

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.bias_layout import LOG2E, TILE, WARPS, block_of, rows_of
from foldcp.kernels.triton_utils import cdiv, next_power_of_2

SIZES = ["num_rows", "N", "num_heads", "num_tiles"]  # one compilation for all of them
# at least so many keep a large GPU busy: the rows of the bias gradient are split to reach it
PROGRAMS = 1024


@triton.jit
@no_type_check
def _weights(a, b, bias, lse, scale) -> tl.tensor:
    """The softmax again from the saved log-sum-exp: in range whatever the scores."""
    return tl.exp2(tl.dot(a, tl.trans(b)) * scale + (bias - lse))


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def _gradient_q(
    Q, K, V, BIAS, DO, LSE, DELTA, DQ, num_rows, N, num_heads, num_tiles, scale,
    qi, qn, qh, ki, kn, kh, vi, vn, vh, di, dn, dh, oi, on, oh,
    D: tl.constexpr, BD: tl.constexpr, EVEN: tl.constexpr,
) -> None:  # fmt: skip
    """dq of one row, head and 64 queries."""
    row = (tl.program_id(0) // num_tiles).to(tl.int64)
    tile = tl.program_id(0) % num_tiles
    head = tl.program_id(1)
    cols = tl.arange(0, BD)
    token = tile * TILE + tl.arange(0, TILE)
    q = rows_of(Q + row * qi + head * qh, tile * TILE, N, qn, D, BD, EVEN)
    do = rows_of(DO + row * di + head * dh, tile * TILE, N, dn, D, BD, EVEN)
    lse = tl.load(LSE + (row * num_heads + head) * num_tiles * TILE + token)
    delta = tl.load(DELTA + (row * num_heads + head) * num_tiles * TILE + token)
    B = (
        BIAS
        + (head.to(tl.int64) * num_tiles + tile) * num_tiles * TILE * TILE
        + tl.arange(0, TILE * TILE)
    )
    dq = tl.zeros((TILE, BD), tl.float32)
    for other in tl.range(num_tiles, num_stages=2):
        bias = block_of(tl.load(B + other * TILE * TILE)).to(tl.float32) * LOG2E
        k = rows_of(K + row * ki + head * kh, other * TILE, N, kn, D, BD, EVEN)
        v = rows_of(V + row * vi + head * vh, other * TILE, N, vn, D, BD, EVEN)
        p = _weights(q, k, bias, lse[:, None], scale)
        ds = p * (tl.dot(do, tl.trans(v)) - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq)
    dq *= scale / LOG2E
    place = row * oi + head * oh + token[:, None] * on + cols[None, :]
    tl.store(
        DQ + place,
        dq.to(DQ.dtype.element_ty),
        mask=(token < N)[:, None] & (cols < D)[None, :],
    )


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def _gradient_kv(
    Q, K, V, BIAS, DO, LSE, DELTA, DK, DV, num_rows, N, num_heads, num_tiles, scale,
    qi, qn, qh, ki, kn, kh, vi, vn, vh, di, dn, dh, oi, on, oh,
    D: tl.constexpr, BD: tl.constexpr, EVEN: tl.constexpr,
) -> None:  # fmt: skip
    """dk and dv of one row, head and 64 keys; blocks are keys by queries, and so is the bias
    given here.
    """
    row = (tl.program_id(0) // num_tiles).to(tl.int64)
    tile = tl.program_id(0) % num_tiles
    head = tl.program_id(1)
    cols = tl.arange(0, BD)
    k = rows_of(K + row * ki + head * kh, tile * TILE, N, kn, D, BD, EVEN)
    v = rows_of(V + row * vi + head * vh, tile * TILE, N, vn, D, BD, EVEN)
    B = (
        BIAS
        + (head.to(tl.int64) * num_tiles + tile) * num_tiles * TILE * TILE
        + tl.arange(0, TILE * TILE)
    )
    dk = tl.zeros((TILE, BD), tl.float32)
    dv = tl.zeros((TILE, BD), tl.float32)
    for other in tl.range(num_tiles, num_stages=2):
        token = other * TILE + tl.arange(0, TILE)
        bias = block_of(tl.load(B + other * TILE * TILE)).to(tl.float32) * LOG2E
        q = rows_of(Q + row * qi + head * qh, other * TILE, N, qn, D, BD, EVEN)
        do = rows_of(DO + row * di + head * dh, other * TILE, N, dn, D, BD, EVEN)
        lse = tl.load(LSE + (row * num_heads + head) * num_tiles * TILE + token)
        delta = tl.load(DELTA + (row * num_heads + head) * num_tiles * TILE + token)
        p = _weights(k, q, bias, lse[None, :], scale)
        dv = tl.dot(p.to(do.dtype), do, dv)
        ds = p * (tl.dot(v, tl.trans(do)) - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk)
    dk *= scale / LOG2E
    token = tile * TILE + tl.arange(0, TILE)
    place = row * oi + head * oh + token[:, None] * on + cols[None, :]
    tl.store(
        DK + place,
        dk.to(DK.dtype.element_ty),
        mask=(token < N)[:, None] & (cols < D)[None, :],
    )
    tl.store(
        DV + place,
        dv.to(DV.dtype.element_ty),
        mask=(token < N)[:, None] & (cols < D)[None, :],
    )


@triton.jit(do_not_specialize=[*SIZES, "rows_a_part"])
@no_type_check
def _gradient_bias(
    Q, K, V, BIAS, DO, LSE, DELTA, DB, num_rows, N, num_heads, num_tiles, scale,
    qi, qn, qh, ki, kn, kh, vi, vn, vh, di, dn, dh, rows_a_part,
    D: tl.constexpr, BD: tl.constexpr, EVEN: tl.constexpr,
) -> None:  # fmt: skip
    """The bias gradient of one head and 64 x 64 tokens, summed over one part of the rows."""
    queries = tl.program_id(0) // num_tiles
    keys = tl.program_id(0) % num_tiles
    head = tl.program_id(1)
    part = tl.program_id(2)
    token = queries * TILE + tl.arange(0, TILE)
    B = BIAS + ((head.to(tl.int64) * num_tiles + queries) * num_tiles + keys) * TILE * TILE
    bias = block_of(tl.load(B + tl.arange(0, TILE * TILE))).to(tl.float32) * LOG2E
    db = tl.zeros((TILE, TILE), tl.float32)
    first = (part * rows_a_part).to(tl.int64)
    for index in tl.range(tl.minimum(rows_a_part, num_rows - part * rows_a_part), num_stages=2):
        row = first + index
        q = rows_of(Q + row * qi + head * qh, queries * TILE, N, qn, D, BD, EVEN)
        k = rows_of(K + row * ki + head * kh, keys * TILE, N, kn, D, BD, EVEN)
        v = rows_of(V + row * vi + head * vh, keys * TILE, N, vn, D, BD, EVEN)
        do = rows_of(DO + row * di + head * dh, queries * TILE, N, dn, D, BD, EVEN)
        lse = tl.load(LSE + (row * num_heads + head) * num_tiles * TILE + token)
        delta = tl.load(DELTA + (row * num_heads + head) * num_tiles * TILE + token)
        p = _weights(q, k, bias, lse[:, None], scale)
        db += p * (tl.dot(do, tl.trans(v)) - delta[:, None])
    other = keys * TILE + tl.arange(0, TILE)
    place = ((part * num_heads + head).to(tl.int64) * N + token[:, None]) * N + other[None, :]
    tl.store(DB + place, db, mask=(token < N)[:, None] & (other < N)[None, :])


def gradient(
    q: Float[Tensor, "I N H D"],
    k: Float[Tensor, "I N H D"],
    v: Float[Tensor, "I N H D"],
    tiles: Tensor,
    tiles_transposed: Tensor,
    out: Float[Tensor, "I N H D"],
    lse: Float[Tensor, "I H N"],
    dout: Float[Tensor, "I N H D"],
) -> tuple[Tensor, Tensor, Tensor, Float[Tensor, "H N N"]]:
    """dq, dk, dv and, in fp32, the gradient of the bias."""
    num_rows, num_tokens, num_heads, width = q.shape
    num_tiles = tiles.shape[1]
    delta = (dout.float() * out.float()).sum(-1).transpose(1, 2)
    # queries after the last token get no weight: their log-sum-exp counts as infinite
    padding = (0, num_tiles * TILE.value - num_tokens)
    lse = F.pad(lse, padding, value=float("inf"))
    delta = F.pad(delta, padding).contiguous()
    dq, dk, dv = (torch.empty(q.shape, dtype=x.dtype, device=q.device) for x in (q, k, v))
    sizes = (num_rows, num_tokens, num_heads, num_tiles, LOG2E.value * width**-0.5)
    strides = [s for x in (q, k, v, dout) for s in x.stride()[:3]]
    block = max(16, next_power_of_2(width))
    even = num_tokens % TILE.value == 0 and block == width
    shape = {"D": width, "BD": block, "EVEN": even, "num_warps": WARPS.value}
    grid = (num_rows * num_tiles, num_heads)
    _gradient_q[grid](
        q,
        k,
        v,
        tiles,
        dout,
        lse,
        delta,
        dq,
        *sizes,
        *strides,
        *dq.stride()[:3],
        **shape,
    )
    _gradient_kv[grid](
        q,
        k,
        v,
        tiles_transposed,
        dout,
        lse,
        delta,
        dk,
        dv,
        *sizes,
        *strides,
        *dk.stride()[:3],
        **shape,
    )
    num_parts = min(num_rows, cdiv(PROGRAMS, num_tiles**2 * num_heads))
    db = q.new_empty((num_parts, num_heads, num_tokens, num_tokens), dtype=torch.float32)
    _gradient_bias[(num_tiles**2, num_heads, num_parts)](
        q,
        k,
        v,
        tiles,
        dout,
        lse,
        delta,
        db,
        *sizes,
        *strides,
        cdiv(num_rows, num_parts),
        **shape,
    )
    return dq, dk, dv, db.sum(0)
