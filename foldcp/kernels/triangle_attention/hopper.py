"""Attention of many rows under one bias on Hopper: the matrix unit works on one row while the
other is weighed.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

from typing import no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    async_copy,
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from foldcp.kernels.triton_utils import cdiv

TILE = gl.constexpr(64)  # queries and keys of a tile
WIDTH = gl.constexpr(32)  # of a head
STAGES = gl.constexpr(3)  # tiles of keys and values on chip: one in use, one ready, one on its way
LOG2E = gl.constexpr(1.4426950408889634)
ROOM = gl.constexpr(8.0)  # as in the Triton kernel: the largest weight of the first tile is 2^-8
RANGE = gl.constexpr(60000.0)
GROUP = 16  # programs of neighbouring rows that run side by side, to meet in the second-level cache

FRAGMENTS = gl.constexpr(gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0]))
SCORES = gl.constexpr(
    gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 64, 16])
)
OUTS = gl.constexpr(
    gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 32, 16])
)
WEIGHTS = gl.constexpr(gl.DotOperandLayout(0, OUTS, 2))
STORED = gl.constexpr(gl.BlockedLayout([1, 8], [8, 4], [4, 1], [1, 0]))
PLAIN = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [1, 0]))
ONE_ROW = gl.constexpr(gl.NVMMASharedLayout.get_default_for([64, 32], gl.bfloat16))
TWO_ROWS = gl.NVMMASharedLayout.get_default_for([2, 64, 32], gl.bfloat16)  # fp16 is as wide


@gluon.jit
@no_type_check
def _bias_of(shared) -> gl.tensor:
    """A tile of the bias, from fragment order into the accumulator's layout without moving, in
    units of log 2.
    """
    x = shared.load(FRAGMENTS).reshape((4, 4, 8, 4, 2, 2, 2))
    x = x.permute((1, 5, 2, 0, 4, 3, 6)).reshape((64, 64))
    return gl.convert_layout(x, SCORES, assert_trivial=True).to(gl.float32) * LOG2E


@gluon.jit
@no_type_check
def _sum_in_thread(p) -> gl.tensor:
    return gl.sum(gl.sum(p.reshape((64, 8, 4, 2)), 3), 1)


@gluon.jit
@no_type_check
def _weights(s, top, bias, scale) -> gl.tensor:
    return gl.exp2(s * scale + bias - gl.expand_dims(top, 1))


@gluon.jit
@no_type_check
def _fetch(kd, vd, BIAS, k, v, b, ready, tile, num_tiles, first, col) -> None:
    """Start the copies of a tile of keys, values and bias; past the last tile only the bias is
    copied again.
    """
    stage = tile % STAGES
    bar = ready.index(stage)
    there = tile < num_tiles
    mbarrier.expect(bar, 2 * 2 * TILE * WIDTH * 2, pred=there)
    tma.async_copy_global_to_shared(kd, [first, tile * TILE, col], bar, k.index(stage), pred=there)
    tma.async_copy_global_to_shared(vd, [first, tile * TILE, col], bar, v.index(stage), pred=there)
    row = gl.arange(0, 64, gl.SliceLayout(1, FRAGMENTS))
    place = gl.expand_dims(row, 1) * TILE + gl.expand_dims(
        gl.arange(0, 64, gl.SliceLayout(0, FRAGMENTS)), 0
    )
    async_copy.async_copy_global_to_shared(
        b.index(tile % 2), BIAS + gl.minimum(tile, num_tiles - 1) * TILE * TILE + place
    )
    async_copy.commit_group()


@gluon.jit
@no_type_check
def _wait_for(ready, tile, num_tiles) -> None:
    mbarrier.wait(ready.index(tile % STAGES), (tile // STAGES) & 1, pred=tile < num_tiles)


@gluon.jit
@no_type_check
def _finish(
    out, total, top, OUT, LSE, REDO, row, num_rows, head, num_heads, tile, query_tiles, N, oi, on,
    oh,
    WANT_LSE: gl.constexpr,
) -> None:  # fmt: skip
    total = gl.sum(total, 1)
    there = row < num_rows
    redo = 1 - gl.min((total < RANGE).to(gl.int32), 0)
    gl.store(REDO + (row * num_heads + head) * query_tiles + tile, redo, mask=there)
    if WANT_LSE:
        token = tile * TILE + gl.arange(0, 64, gl.SliceLayout(1, SCORES))
        place = LSE + (row.to(gl.int64) * num_heads + head) * N + token
        lse = gl.convert_layout(top, gl.SliceLayout(1, SCORES)) + gl.log2(
            gl.convert_layout(total, gl.SliceLayout(1, SCORES))
        )
        gl.store(place, lse, mask=(token < N) & there)
    out = out / gl.expand_dims(gl.convert_layout(total, gl.SliceLayout(1, OUTS)), 1)
    token = tile * TILE + gl.arange(0, 64, gl.SliceLayout(1, STORED))
    place = row.to(gl.int64) * oi + head * oh + gl.expand_dims(token, 1) * on
    place += gl.expand_dims(gl.arange(0, 32, gl.SliceLayout(0, STORED)), 0)
    inside = gl.expand_dims((token < N) & there, 1) & (place >= 0)
    gl.store(OUT + place, gl.convert_layout(out.to(gl.bfloat16), STORED), mask=inside)


@gluon.jit
@no_type_check
def _work(num_rows, query_tiles, GROUP: gl.constexpr) -> tuple[gl.tensor, gl.tensor, gl.tensor]:
    """The head, the tile of queries and the first of the two rows of this program."""
    num_groups = (num_rows + 1) // 2
    head = gl.program_id(0) // (num_groups * query_tiles)
    place = gl.program_id(0) % (num_groups * query_tiles)
    chunk = place // (GROUP * query_tiles)
    size = gl.minimum(num_groups - chunk * GROUP, GROUP)
    tile = (place - chunk * GROUP * query_tiles) // size
    first = (chunk * GROUP + (place - chunk * GROUP * query_tiles) % size) * 2
    return head, tile, first


@gluon.jit(do_not_specialize=["num_rows", "N", "num_heads", "query_tiles", "num_tiles"])
@no_type_check
def _forward(
    qd, kd, vd, BIAS, OUT, LSE, REDO, num_rows, N, num_heads, query_tiles, num_tiles, scale, oi,
    on, oh,
    GROUP: gl.constexpr, WANT_LSE: gl.constexpr,
) -> None:  # fmt: skip
    """One head, 64 queries, two rows, a and b. Always in flight: weights times values of one row,
    and the scores of its next tile; meanwhile the scores of the other row become weights. A weight
    may only turn into an operand (`p`) while nothing is in flight, else the compiler makes the
    matrix unit wait after every instruction.
    """
    k = gl.allocate_shared_memory(gl.bfloat16, [STAGES, 2, TILE, WIDTH], kd.layout)
    v = gl.allocate_shared_memory(gl.float16, [STAGES, 2, TILE, WIDTH], vd.layout)
    q = gl.allocate_shared_memory(gl.bfloat16, [2, TILE, WIDTH], qd.layout)
    b = gl.allocate_shared_memory(gl.float16, [2, TILE, TILE], PLAIN)
    keys = k._reinterpret(gl.bfloat16, [STAGES * 2, TILE, WIDTH], ONE_ROW)
    values = v._reinterpret(gl.float16, [STAGES * 2, TILE, WIDTH], ONE_ROW)
    queries = q._reinterpret(gl.bfloat16, [2, TILE, WIDTH], ONE_ROW)
    ready = gl.allocate_shared_memory(gl.int64, [STAGES + 1, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES + 1):
        mbarrier.init(ready.index(i), count=1)
    fence_async_shared()

    head, tile, first = _work(num_rows, query_tiles, GROUP)
    col = head * WIDTH
    B = BIAS + (head * query_tiles + tile).to(gl.int64) * num_tiles * TILE * TILE

    arrived = ready.index(STAGES)
    mbarrier.expect(arrived, 2 * TILE * WIDTH * 2)
    tma.async_copy_global_to_shared(qd, [first, tile * TILE, col], arrived, q)
    for i in gl.static_range(2):
        _fetch(kd, vd, B, k, v, b, ready, i, num_tiles, first, col)
    zero = gl.zeros([64, 64], gl.float32, SCORES)
    out_a = gl.zeros([64, 32], gl.float32, OUTS)
    out_b = gl.zeros([64, 32], gl.float32, OUTS)
    mbarrier.wait(arrived, 0)
    _wait_for(ready, 0, num_tiles)
    async_copy.wait_group(1)
    next_a = warpgroup_mma(
        queries.index(0),
        keys.index(0).permute((1, 0)),
        zero,
        use_acc=False,
        is_async=True,
    )
    next_b = warpgroup_mma(
        queries.index(1),
        keys.index(1).permute((1, 0)),
        zero,
        use_acc=False,
        is_async=True,
    )
    bias = _bias_of(b.index(0))
    s_a, s_b = warpgroup_mma_wait(0, deps=(next_a, next_b))
    top_a = gl.max(s_a * scale + bias, 1) + ROOM
    top_b = gl.max(s_b * scale + bias, 1) + ROOM
    e = _weights(s_a, top_a, bias, scale)
    total_a = _sum_in_thread(e)
    total_b = total_a * 0.0
    p = gl.convert_layout(e.to(gl.float16), WEIGHTS)
    _wait_for(ready, 1, num_tiles)
    for i in range(num_tiles - 1):
        now = i % STAGES * 2
        after = (i + 1) % STAGES * 2
        then_a = warpgroup_mma(p, values.index(now), out_a, is_async=True)
        next_a = warpgroup_mma(
            queries.index(0),
            keys.index(after).permute((1, 0)),
            zero,
            use_acc=False,
            is_async=True,
        )
        async_copy.wait_group(0)
        gl.thread_barrier()  # all warps are done with the tile before, whose place is taken now
        _fetch(kd, vd, B, k, v, b, ready, i + 2, num_tiles, first, col)
        e = _weights(s_b, top_b, bias, scale)
        total_b += _sum_in_thread(e)
        bias = _bias_of(b.index((i + 1) % 2))
        # Complete already; its branch keeps the exponentials before the wait below.
        _wait_for(ready, i + 1, num_tiles)
        out_a, s_a, p, e = warpgroup_mma_wait(0, deps=(then_a, next_a, p, e))
        p = gl.convert_layout(e.to(gl.float16), WEIGHTS)
        then_b = warpgroup_mma(p, values.index(now + 1), out_b, is_async=True)
        next_b = warpgroup_mma(
            queries.index(1),
            keys.index(after + 1).permute((1, 0)),
            zero,
            use_acc=False,
            is_async=True,
        )
        e = _weights(s_a, top_a, bias, scale)
        total_a += _sum_in_thread(e)
        _wait_for(ready, i + 2, num_tiles)
        out_b, s_b, p, e = warpgroup_mma_wait(0, deps=(then_b, next_b, p, e))
        p = gl.convert_layout(e.to(gl.float16), WEIGHTS)
    now = (num_tiles - 1) % STAGES * 2
    then_a = warpgroup_mma(p, values.index(now), out_a, is_async=True)
    e = _weights(s_b, top_b, bias, scale)
    total_b += _sum_in_thread(e)
    out_a, p, e = warpgroup_mma_wait(0, deps=(then_a, p, e))
    p = gl.convert_layout(e.to(gl.float16), WEIGHTS)
    then_b = warpgroup_mma(p, values.index(now + 1), out_b, is_async=True)
    out_b, p = warpgroup_mma_wait(0, deps=(then_b, p))
    async_copy.wait_group(0)
    _finish(
        out_a, total_a, top_a, OUT, LSE, REDO, first, num_rows, head, num_heads, tile, query_tiles,
        N, oi, on, oh,
        WANT_LSE,
    )  # fmt: skip
    _finish(
        out_b, total_b, top_b, OUT, LSE, REDO, first + 1, num_rows, head, num_heads, tile,
        query_tiles, N,
        oi, on, oh, WANT_LSE,
    )  # fmt: skip


def forward(
    q: Float[Tensor, "R N H D"],
    k: Float[Tensor, "R N H D"],
    v: Float[Tensor, "R N H D"],
    tiles: Float[Tensor, "H A B T"],
    out: Float[Tensor, "R N H D"],
    lse: Float[Tensor, "R H N"] | None,
) -> Int[Tensor, "R H A"]:
    """Write `out` and `lse`; 1 where the weights of a row's tile of queries left their range, to
    be done again.
    """
    num_rows, N, num_heads, width = q.shape
    _, query_tiles, num_tiles, _ = tiles.shape
    redo = torch.empty((num_rows, num_heads, query_tiles), dtype=torch.int32, device=q.device)
    operands = [TensorDescriptor.from_tensor(_columns(x), [2, 64, 32], TWO_ROWS) for x in (q, k, v)]
    _forward[(num_heads * query_tiles * cdiv(num_rows, 2),)](
        *operands, tiles, out, out if lse is None else lse, redo,
        num_rows, N, num_heads, query_tiles, num_tiles, LOG2E.value * width**-0.5,
        *out.stride()[:3],
        GROUP=GROUP, WANT_LSE=lse is not None, num_warps=4,
    )  # fmt: skip
    return redo


def _columns(x: Float[Tensor, "R N H D"]) -> Float[Tensor, "R N C"]:
    """Heads side by side, as the copy engine reads them: steps of 16 bytes between rows and
    tokens.
    """
    R, N, H, D = x.shape
    if x.stride()[2:] != (D, 1) or x.stride(0) % 8 or x.stride(1) % 8 or x.data_ptr() % 16:
        x = x.contiguous()
    return x.as_strided((R, N, H * D), (x.stride(0), x.stride(1), 1))
