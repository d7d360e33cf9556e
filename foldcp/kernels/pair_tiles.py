"""Helpers of Triton kernels: tiles of pairs and of weights, LayerNorm, gates, fp16."""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

from foldcp.kernels.layer_norm.reference import EPSILON

LOG2E = tl.constexpr(1.4426950408889634)
EPS = tl.constexpr(EPSILON)


@triton.jit
@no_type_check
def reciprocal(x) -> tl.tensor:
    """1 / x to 1 ulp; the division operator spends four more instructions on the ends of the
    range.
    """
    return tl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )  # fmt: skip


@triton.jit
@no_type_check
def sigmoid(x) -> tl.tensor:
    return reciprocal(1.0 + tl.exp2(-LOG2E * x))


@triton.jit
@no_type_check
def saturated_fp16(x) -> tl.tensor:
    """x, which is fp32, in fp16; what lies beyond its range becomes the ends of the range."""
    return tl.minimum(tl.maximum(x, -65504.0), 65504.0).to(tl.float16)


@triton.jit
@no_type_check
def pair_offsets(first, pair, N, stride_i, stride_n, FLAT: tl.constexpr) -> tl.tensor:
    """Where the channels of each pair begin, in a tile that begins with pair `first`; FLAT: rows
    follow each other.
    """
    if FLAT:
        place = first.to(tl.int64) * stride_n + (pair - first) * stride_n
    else:
        row, column = rows_and_columns(first, pair, N)
        place = row.to(tl.int64) * stride_i + column.to(tl.int64) * stride_n
    return place


@triton.jit
@no_type_check
def rows_and_columns(first, pair, N) -> tuple[tl.tensor, tl.tensor]:
    """Rows and columns: one division for the tile, and for a pair a product with 1 / N, exact at
    this size.
    """
    row = first // N
    column = pair - row * N
    more = ((column + 0.5) * (1.0 / N)).to(tl.int32)
    return row + more, column - more * N


@triton.jit
@no_type_check
def normed(x, inside, weight, bias, C: tl.constexpr, DIM: tl.constexpr) -> tl.tensor:
    """LayerNorm of x over DIM, where `inside` marks its C real channels; 0 in the others."""
    mean = tl.expand_dims(tl.sum(x, DIM) / C, DIM)
    centred = tl.where(inside, x - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, DIM) / C + EPS)
    return centred * tl.expand_dims(scale, DIM) * weight + bias


@triton.jit
@no_type_check
def vector(X, index, size) -> tl.tensor:
    return tl.load(X + index, mask=index < size, other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def normed_pairs(Z, W, B, place, real, C: tl.constexpr, BC: tl.constexpr) -> tl.tensor:
    """LayerNorm of the pairs at `place`, in fp32."""
    c = tl.arange(0, BC)
    inside = (c < C)[None, :]
    x = tl.load(Z + place[:, None] + c[None, :], mask=real[:, None] & inside, other=0.0)
    weight = vector(W, c, C)[None, :]
    bias = vector(B, c, C)[None, :]
    return normed(x.to(tl.float32), inside, weight, bias, C, 1)


@triton.jit
@no_type_check
def weight_tile(W, rows, cols, num_rows, num_cols) -> tl.tensor:
    """rows x cols of a matrix [num_rows, num_cols], zeros outside."""
    inside = (rows < num_rows)[:, None] & (cols < num_cols)[None, :]
    return tl.load(W + rows[:, None] * num_cols + cols[None, :], mask=inside, other=0.0)


@triton.jit
@no_type_check
def add_to_pairs(Z, OUT, place, out_place, channel, real, update, C: tl.constexpr) -> None:
    inside = real[:, None] & (channel < C)[None, :]
    z = tl.load(Z + place[:, None] + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(
        OUT + out_place[:, None] + channel[None, :],
        (z + update).to(OUT.dtype.element_ty),
        mask=inside,
    )
