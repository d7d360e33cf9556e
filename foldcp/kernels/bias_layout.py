"""The layout of what attention reads again and again: the bias in tiles of fragment order, values
in fp16, rows of q, k and v.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.kernels.pair_tiles import saturated_fp16
from foldcp.kernels.triton_utils import cdiv, next_power_of_2

TILE = tl.constexpr(64)  # queries and keys of a tile
WARPS = tl.constexpr(4)  # that work on a tile
FLOOR = tl.constexpr(-60000.0)  # the bias of a padding key: within fp16, and exp of it is 0
LOG2E = tl.constexpr(1.4426950408889634)
STAGES = tl.constexpr(3)  # of the pipeline of loads
LARGE = tl.constexpr(40.0)  # a row of the bias whose maximum is beyond this is shifted towards 0
MAXIMA_MULTIPLE = 256  # queries at most that a kernel for Hopper takes at once


@dataclass(frozen=True)
class PreparedBias:
    """A bias as the kernels read it: fp16 tiles in fragment order with the mask in them, [heads,
    tiles of queries, tiles of keys, TILE * TILE], and the largest of each query, then zeros up to a
    multiple of MAXIMA_MULTIPLE. `tickets` are counters of the kernel for Hopper, zero between
    launches, which therefore are in one stream.
    """

    tiles: Float[Tensor, "H A B T"]
    maxima: Float[Tensor, "H I"]
    tickets: Int[Tensor, " 2"]


@triton.jit
@no_type_check
def rows_of(
    X, start, size, stride, D: tl.constexpr, BD: tl.constexpr, EVEN: tl.constexpr
) -> tl.tensor:
    """[TILE, BD] from token `start` on, zeros after the last token and beyond width D."""
    token = start + tl.arange(0, TILE)
    cols = tl.arange(0, BD)
    if EVEN:
        return tl.load(X + token[:, None] * stride + cols[None, :])
    else:
        inside = (token < size)[:, None] & (cols < D)[None, :]
        return tl.load(X + token[:, None] * stride + cols[None, :], mask=inside, other=0.0)


# The fragment order of a [TILE, TILE] block: element by element as the threads of a matrix
# instruction hold its accumulator, so that 16-byte loads bring a thread its own elements and no
# layout changes on the way. A thread holds rows r and r + 8 and column pairs c, c + 8, ...: warp,
# lane row, lane column, and then its 8 consecutive elements: column + 8, row + 8, column + 1.
@triton.jit
@no_type_check
def block_of(fragments) -> tl.tensor:
    x = tl.reshape(
        fragments, (TILE // 16, WARPS, 8, 4, 2, 2, 2)
    )  # column / 16, warp, lane row, lane column
    return tl.reshape(tl.permute(x, (1, 5, 2, 0, 4, 3, 6)), (TILE, TILE))


@triton.jit
@no_type_check
def _fragments_of(block) -> tl.tensor:
    x = tl.reshape(block, (WARPS, 2, 8, TILE // 16, 2, 4, 2))
    return tl.reshape(tl.permute(x, (3, 0, 2, 5, 4, 1, 6)), (TILE * TILE,))


@triton.jit
@no_type_check
def _bias_block(BIAS, MASK, row, cols, num_queries, num_keys, stride_n, stride_m) -> tl.tensor:
    real = tl.load(MASK + cols, mask=cols < num_keys, other=0).to(tl.float32) > 0
    place = row.to(tl.int64)[:, None] * stride_n + cols.to(tl.int64)[None, :] * stride_m
    inside = (row < num_queries)[:, None] & (cols < num_keys)[None, :]
    x = tl.load(BIAS + place, mask=inside, other=-float("inf"))
    return tl.where(real[None, :], x.to(tl.float32), -float("inf"))


@triton.jit(do_not_specialize=["num_queries", "query_tiles", "key_tiles", "maxima_h"])
@no_type_check
def _prepare(
    BIAS, MASK, OUT, MAXIMA, num_queries, num_keys, query_tiles, key_tiles, stride_h, stride_n,
    stride_m, maxima_h,
    TRANSPOSED: tl.constexpr,
) -> None:  # fmt: skip
    """The bias of one head and 64 queries in fp16 and fragment order: masked, and shifted if it is
    very large.

    A shift by a multiple of 16 keeps what matters exact: bf16 fits into fp16, near the maximum also
    after it.
    """
    tile = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    row = tile * TILE + tl.arange(0, TILE)
    BIAS += head * stride_h
    top = tl.full((TILE,), -float("inf"), tl.float32)
    for other in tl.range(key_tiles, num_stages=STAGES):
        cols = other * TILE + tl.arange(0, TILE)
        x = _bias_block(BIAS, MASK, row, cols, num_queries, num_keys, stride_n, stride_m)
        top = tl.maximum(top, tl.max(x, 1))
    shift = tl.where(
        (tl.abs(top) > LARGE) & (top > -float("inf")), tl.floor(top / 16.0) * 16.0, 0.0
    )
    largest = tl.where(top > -float("inf"), tl.maximum(top - shift, FLOOR), 0.0)
    tl.store(MAXIMA + head * maxima_h + row, largest, mask=row < num_queries)
    for other in tl.range(key_tiles, num_stages=STAGES):
        cols = other * TILE + tl.arange(0, TILE)
        x = (
            _bias_block(BIAS, MASK, row, cols, num_queries, num_keys, stride_n, stride_m)
            - shift[:, None]
        )
        x = tl.where((row < num_queries)[:, None], tl.maximum(x, FLOOR), 0.0).to(tl.float16)
        if TRANSPOSED:
            place = (head * key_tiles + other) * query_tiles + tile
            x = tl.trans(x)
        else:
            place = (head * query_tiles + tile) * key_tiles + other
        tl.store(OUT + place * TILE * TILE + tl.arange(0, TILE * TILE), _fragments_of(x))


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _to_fp16(
    X,
    OUT,
    N,
    xi,
    xn,
    xh,
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    TOKENS: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    col = tl.arange(0, BLOCK)
    inside = (token < N)[:, None] & (col < H * D)[None, :]
    place = row * xi + token[:, None] * xn + (col // D * xh + col % D)[None, :]
    x = saturated_fp16(tl.load(X + place, mask=inside, other=0.0).to(tl.float32))
    tl.store(OUT + (row * N + token[:, None]) * (H * D) + col[None, :], x, mask=inside)


def to_fp16(x: Float[Tensor, "R N H D"]) -> Float[Tensor, "R N H D"]:
    """x in fp16, where bf16 is exact but for values beyond 65504, which become that, and values
    below 6e-8.
    """
    if x.dtype == torch.float16:
        return x
    out = torch.empty(x.shape, dtype=torch.float16, device=x.device)
    R, N, H, D = x.shape
    _to_fp16[(R, cdiv(N, 32))](
        x, out, N, *x.stride()[:3], H=H, D=D, BLOCK=next_power_of_2(H * D), TOKENS=32
    )
    return out


def prepare(
    bias: Float[Tensor, "H I N"], mask: Float[Tensor, " N"], transposed: bool = False
) -> PreparedBias:
    """The bias with the mask in it, for the kernels; with keys before queries, tiles and blocks
    alike, when `transposed`.
    """
    num_heads, num_queries, num_keys = bias.shape
    tile = TILE.value
    counts = (cdiv(num_queries, tile), cdiv(num_keys, tile))
    shape = (num_heads, *(reversed(counts) if transposed else counts), tile * tile)
    tiles = torch.empty(shape, dtype=torch.float16, device=bias.device)
    padded = cdiv(num_queries, MAXIMA_MULTIPLE) * MAXIMA_MULTIPLE
    zeros = torch.zeros(num_heads * padded + 2, dtype=torch.float32, device=bias.device)
    maxima = zeros[:-2].view(num_heads, padded)
    _prepare[(counts[0], num_heads)](
        bias,
        mask,
        tiles,
        maxima,
        num_queries,
        num_keys,
        *counts,
        *bias.stride(),
        padded,
        TRANSPOSED=transposed,
        num_warps=4,
    )
    return PreparedBias(tiles, maxima, zeros[-2:].view(torch.int32))
