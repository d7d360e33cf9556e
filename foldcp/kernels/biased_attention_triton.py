"""Attention of many rows under one bias, in Triton: no running maximum, and a bias that no layout changes."""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportPossiblyUnboundVariable=false
# ruff: noqa: RUF005 (kernels cannot unpack a tuple into another)

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

LOG2E = tl.constexpr(1.4426950408889634)
FLOOR = tl.constexpr(-60000.0)  # the bias of a padding key: within fp16, and exp of it is 0
LARGE = tl.constexpr(40.0)  # a row of the bias whose maximum is beyond this is shifted towards 0
RANGE = tl.constexpr(2.0**100)  # of the sum of exponentials, beyond which a tile is done again with the maximum
TILE = tl.constexpr(64)  # queries and keys of a tile
GROUP = 16  # programs of neighbouring rows that run side by side, to meet in the second-level cache
WARPS = tl.constexpr(4)


# The fragment order of a [TILE, TILE] block: element by element as the threads of a matrix instruction hold
# its accumulator, so that 16-byte loads bring a thread its own elements and no layout changes on the way.
# A thread holds rows r and r + 8 and column pairs c, c + 8, ...: warp, lane row, lane column, and then
# its 8 consecutive elements: column + 8, row + 8, column + 1.
@triton.jit
def _block_of(fragments) -> tl.tensor:
    x = tl.reshape(fragments, (TILE // 16, WARPS, 8, 4, 2, 2, 2))  # column / 16, warp, lane row, lane column
    return tl.reshape(tl.permute(x, (1, 5, 2, 0, 4, 3, 6)), (TILE, TILE))


@triton.jit
def _fragments_of(block) -> tl.tensor:
    x = tl.reshape(block, (WARPS, 2, 8, TILE // 16, 2, 4, 2))
    return tl.reshape(tl.permute(x, (3, 0, 2, 5, 4, 1, 6)), (TILE * TILE,))


@triton.jit
def _bias_block(BIAS, MASK, row, cols, num_queries, num_keys, stride_n, stride_m) -> tl.tensor:
    real = tl.load(MASK + cols, mask=cols < num_keys, other=0).to(tl.float32) > 0
    place = row.to(tl.int64)[:, None] * stride_n + cols.to(tl.int64)[None, :] * stride_m
    inside = (row < num_queries)[:, None] & (cols < num_keys)[None, :]
    x = tl.load(BIAS + place, mask=inside, other=-float("inf"))
    return tl.where(real[None, :], x.to(tl.float32), -float("inf"))


@triton.jit(do_not_specialize=["num_queries", "query_tiles", "key_tiles"])
def _prepare(
    BIAS, MASK, OUT, num_queries, num_keys, query_tiles, key_tiles, stride_h, stride_n, stride_m,
    TRANSPOSED: tl.constexpr,
) -> None:  # fmt: skip
    """The bias of one head and 64 queries in fp16 and fragment order: masked, and shifted if it is very large.

    A shift by a multiple of 16 keeps what matters exact: bf16 fits into fp16, near the maximum also after it.
    """
    tile, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = tile * TILE + tl.arange(0, TILE)
    BIAS += head * stride_h
    top = tl.full((TILE,), -float("inf"), tl.float32)
    for other in range(key_tiles):
        cols = other * TILE + tl.arange(0, TILE)
        x = _bias_block(BIAS, MASK, row, cols, num_queries, num_keys, stride_n, stride_m)
        top = tl.maximum(top, tl.max(x, 1))
    shift = tl.where((tl.abs(top) > LARGE) & (top > -float("inf")), tl.floor(top / 16.0) * 16.0, 0.0)
    for other in range(key_tiles):
        cols = other * TILE + tl.arange(0, TILE)
        x = _bias_block(BIAS, MASK, row, cols, num_queries, num_keys, stride_n, stride_m) - shift[:, None]
        x = tl.where((row < num_queries)[:, None], tl.maximum(x, FLOOR), 0.0).to(tl.float16)
        if TRANSPOSED:
            place = (head * key_tiles + other) * query_tiles + tile
            x = tl.trans(x)
        else:
            place = (head * query_tiles + tile) * key_tiles + other
        tl.store(OUT + place * TILE * TILE + tl.arange(0, TILE * TILE), _fragments_of(x))


@triton.jit
def _rows_of(X, start, size, stride, D: tl.constexpr, BD: tl.constexpr, EVEN: tl.constexpr) -> tl.tensor:
    """[TILE, BD] from token `start` on, zeros after the last token and beyond width D."""
    token = start + tl.arange(0, TILE)
    cols = tl.arange(0, BD)
    if EVEN:
        return tl.load(X + token[:, None] * stride + cols[None, :])
    else:
        inside = (token < size)[:, None] & (cols < D)[None, :]
        return tl.load(X + token[:, None] * stride + cols[None, :], mask=inside, other=0.0)


@triton.jit
def _step(q, k, v, bias, out, total, scale) -> tuple[tl.tensor, tl.tensor]:
    p = tl.exp2(tl.dot(q, tl.trans(k)) * scale + bias)
    # sums within a thread; the four threads that share a row are added up once, at the end
    total += tl.sum(tl.sum(tl.reshape(p, (TILE, TILE // 8, 4, 2)), 3), 1)
    return tl.dot(p.to(v.dtype), v, out), total


@triton.jit
def _with_maximum(
    q, K, V, B, num_keys, num_tiles, stride_k, stride_v, scale, D: tl.constexpr, BD: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Attention with a running maximum, for any range of scores."""
    top = tl.full((TILE,), -float("inf"), tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    out = tl.zeros((TILE, BD), tl.float32)
    for tile in tl.range(num_tiles, num_stages=1):
        k = _rows_of(K, tile * TILE, num_keys, stride_k, D, BD, False)
        v = _rows_of(V, tile * TILE, num_keys, stride_v, D, BD, False)
        bias = _block_of(tl.load(B + tile * TILE * TILE)).to(tl.float32) * LOG2E
        s = tl.dot(q, tl.trans(k)) * scale + bias
        new = tl.maximum(top, tl.max(s, 1))
        p = tl.exp2(s - new[:, None])
        fade = tl.exp2(top - new)
        total = total * fade + tl.sum(p, 1)
        out = tl.dot(p.to(v.dtype), v, out * fade[:, None])
        top = new
    return out, total, top


@triton.jit(do_not_specialize=["num_rows", "num_queries", "num_keys", "num_heads", "query_tiles", "key_tiles"])
def _forward(
    Q, K, V, BIAS, OUT, LSE, num_rows, num_queries, num_keys, num_heads, query_tiles, key_tiles, scale,
    qi, qn, qh, ki, kn, kh, vi, vn, vh, oi, on, oh,
    D: tl.constexpr, BD: tl.constexpr, SHARE: tl.constexpr, GROUP: tl.constexpr, WANT_LSE: tl.constexpr,
    EVEN: tl.constexpr,
) -> None:  # fmt: skip
    """One head, 64 queries, SHARE rows. exp2(score) needs no maximum as long as its sums stay in range."""
    num_groups = tl.cdiv(num_rows, SHARE)
    head = tl.program_id(0) // (num_groups * query_tiles)
    place = tl.program_id(0) % (num_groups * query_tiles)
    chunk = place // (GROUP * query_tiles)
    size = tl.minimum(num_groups - chunk * GROUP, GROUP)
    rest = place - chunk * GROUP * query_tiles
    tile = rest // size
    first = (chunk * GROUP + rest % size) * SHARE
    B = BIAS + (head.to(tl.int64) * query_tiles + tile) * key_tiles * TILE * TILE + tl.arange(0, TILE * TILE)
    queries, keys, values, outs, totals = (), (), (), (), ()
    for r in tl.static_range(SHARE):
        row = tl.minimum(first + r, num_rows - 1).to(tl.int64)
        queries = queries + (_rows_of(Q + row * qi + head * qh, tile * TILE, num_queries, qn, D, BD, False),)
        keys = keys + (K + row * ki + head * kh,)
        values = values + (V + row * vi + head * vh,)
        outs = outs + (tl.zeros((TILE, BD), tl.float32),)
        totals = totals + (tl.zeros((TILE, 4), tl.float32),)
    for other in tl.range(key_tiles, num_stages=3):
        bias = _block_of(tl.load(B + other * TILE * TILE)).to(tl.float32) * LOG2E
        new_outs, new_totals = (), ()
        for r in tl.static_range(SHARE):
            k = _rows_of(keys[r], other * TILE, num_keys, kn, D, BD, EVEN)
            v = _rows_of(values[r], other * TILE, num_keys, vn, D, BD, EVEN)
            out, total = _step(queries[r], k, v, bias, outs[r], totals[r], scale)
            new_outs = new_outs + (out,)
            new_totals = new_totals + (total,)
        outs = new_outs
        totals = new_totals
    token = tile * TILE + tl.arange(0, TILE)
    cols = tl.arange(0, BD)
    for r in tl.static_range(SHARE):
        out, total, top = outs[r], tl.sum(totals[r], 1), tl.zeros((TILE,), tl.float32)
        if tl.min(((total > 1 / RANGE) & (total < RANGE)).to(tl.int32), 0) == 0:
            out, total, top = _with_maximum(
                queries[r], keys[r], values[r], B, num_keys, key_tiles, kn, vn, scale, D, BD
            )  # fmt: skip
        inside = (token < num_queries) & (first + r < num_rows)
        row = (first + r).to(tl.int64)
        out = (out / total[:, None]).to(OUT.dtype.element_ty)
        place = row * oi + head * oh + token[:, None] * on + cols[None, :]
        tl.store(OUT + place, out, mask=inside[:, None] & (cols < D)[None, :])
        if WANT_LSE:
            tl.store(LSE + (row * num_heads + head) * num_queries + token, top + tl.log2(total), mask=inside)


def prepare(
    bias: Float[Tensor, "H I N"], mask: Float[Tensor, " N"], transposed: bool = False
) -> Float[Tensor, "H A B T"]:
    """The bias in tiles of fragment order [H, tiles of queries, tiles of keys, TILE * TILE], or with keys before
    queries, tiles and blocks alike, when `transposed`; fp16, mask included."""
    num_heads, num_queries, num_keys = bias.shape
    tile = TILE.value
    tiles = (triton.cdiv(num_queries, tile), triton.cdiv(num_keys, tile))
    shape = (num_heads, *(reversed(tiles) if transposed else tiles), tile * tile)
    out = torch.empty(shape, dtype=torch.float16, device=bias.device)
    _prepare[(tiles[0], num_heads)](
        bias, mask, out, num_queries, num_keys, *tiles, *bias.stride(), TRANSPOSED=transposed, num_warps=4
    )
    return out


def forward(
    q: Float[Tensor, "R I H D"],
    k: Float[Tensor, "R N H D"],
    v: Float[Tensor, "R N H D"],
    tiles: Float[Tensor, "H A B T"],
    want_lse: bool = False,
) -> tuple[Float[Tensor, "R I H D"], Float[Tensor, "R H I"]]:
    """The output and, if wanted, the base-2 logarithm of each query's sum (else an empty tensor)."""
    num_rows, num_queries, num_heads, width = q.shape
    num_keys, (_, query_tiles, key_tiles, _) = k.shape[1], tiles.shape
    block = max(16, triton.next_power_of_2(width))
    share = 2 if block <= 32 else 1  # rows in one program: as many as the registers hold
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    out = torch.empty(q.shape, dtype=v.dtype, device=q.device)
    shape = (num_rows, num_heads, num_queries) if want_lse else (0, 0, 0)
    lse = torch.empty(shape, dtype=torch.float32, device=q.device)
    _forward[(num_heads * query_tiles * triton.cdiv(num_rows, share),)](
        q, k, v, tiles, out, lse, num_rows, num_queries, num_keys, num_heads, query_tiles, key_tiles,
        LOG2E.value * width**-0.5, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3],
        D=width, BD=block, SHARE=share, GROUP=GROUP, WANT_LSE=want_lse,
        EVEN=num_keys % TILE.value == 0 and block == width, num_warps=WARPS.value,
    )  # fmt: skip
    return out, lse
