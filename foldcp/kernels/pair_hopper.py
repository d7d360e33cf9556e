"""The pair updates whose weights stay on chip, where there is room for them: programs go from
tile to tile.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportPossiblyUnboundVariable=false
# ruff: noqa: RUF005 (kernels cannot unpack a tuple into another)

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from foldcp.kernels.pair_triton import (
    _add,
    _normed,
    _normed_pairs,
    _place,
    _sigmoid,
    _vector,
    _weight,
    flat,
    strides,
)
from foldcp.kernels.triton_utils import cdiv, next_power_of_2

# pairs of a tile and channels at a time
PAIRS = 64
STEP = 64
WARPS = 4
ROOM = 64 << 10  # bytes of weights beside the pairs of two programs on a multiprocessor


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _add_gated_output(
    Z, PRODUCT, OUT, W, B, W_OUT, B_OUT, P, G, num_pairs, N, zi, zn, oi, on, pk,
    FLAT: tl.constexpr,
    C: tl.constexpr, BC: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, BM: tl.constexpr, STEP: tl.constexpr,
) -> None:  # fmt: skip
    c = tl.arange(0, BC)
    k = tl.arange(0, BK)
    inside = (k < K)[:, None]
    outs = ()
    gates = ()
    for step in tl.static_range(0, C, STEP):
        channel = step + tl.arange(0, STEP)
        outs = outs + (_weight(P, channel, k, C, K),)
        gates = gates + (_weight(G, channel, c, C, C),)
    for tile in tl.range(
        tl.program_id(0), tl.cdiv(num_pairs, BM), tl.num_programs(0), num_stages=1
    ):
        first = tile * BM
        pair = first + tl.arange(0, BM)
        real = pair < num_pairs
        place = _place(first, pair, N, zi, zn, FLAT)
        out_place = _place(first, pair, N, oi, on, FLAT)
        y_place = k.to(tl.int64)[:, None] * pk + pair[None, :]
        y = tl.load(PRODUCT + y_place, mask=inside & real[None, :], other=0.0).to(tl.float32)
        x = _normed_pairs(Z, W, B, place, real, C, BC).to(G.dtype.element_ty)
        y = _normed(
            y,
            inside,
            _vector(W_OUT, k, K)[:, None],
            _vector(B_OUT, k, K)[:, None],
            K,
            0,
        )
        y = tl.trans(y.to(P.dtype.element_ty))
        for step in tl.static_range(0, C, STEP):
            update = tl.dot(y, tl.trans(outs[step // STEP])) * _sigmoid(
                tl.dot(x, tl.trans(gates[step // STEP]))
            )
            _add(Z, OUT, place, out_place, step + tl.arange(0, STEP), real, update, C)


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _add_attention_output(
    Z, A, OUT, W, B, G, P, num_pairs, N, zi, zn, oi, on, ai, an,
    FLAT: tl.constexpr, C: tl.constexpr, BC: tl.constexpr, K: tl.constexpr, BM: tl.constexpr, STEP: tl.constexpr,
) -> None:  # fmt: skip
    c = tl.arange(0, BC)
    outs = ()
    gates = ()
    for step in tl.static_range(0, K, STEP):
        k = step + tl.arange(0, STEP)
        outs = outs + (_weight(P, c, k, C, K),)
        gates = gates + (_weight(G, k, c, K, C),)
    for tile in tl.range(
        tl.program_id(0), tl.cdiv(num_pairs, BM), tl.num_programs(0), num_stages=1
    ):
        first = tile * BM
        pair = first + tl.arange(0, BM)
        real = pair < num_pairs
        place = _place(first, pair, N, zi, zn, FLAT)
        a_place = _place(first, pair, N, ai, an, FLAT)
        attended = ()
        for step in tl.static_range(0, K, STEP):
            k = step + tl.arange(0, STEP)
            inside = real[:, None] & (k < K)[None, :]
            attended = attended + (
                tl.load(A + a_place[:, None] + k[None, :], mask=inside, other=0.0),
            )
        x = _normed_pairs(Z, W, B, place, real, C, BC).to(G.dtype.element_ty)
        update = tl.zeros((BM, BC), tl.float32)
        for step in tl.static_range(0, K, STEP):
            a = attended[step // STEP].to(tl.float32) * _sigmoid(
                tl.dot(x, tl.trans(gates[step // STEP]))
            )
            update = tl.dot(a.to(P.dtype.element_ty), tl.trans(outs[step // STEP]), update)
        _add(Z, OUT, place, _place(first, pair, N, oi, on, FLAT), c, real, update, C)


def have_room(*weights: Tensor) -> bool:
    """Do these weights, padded to powers of two, fit beside the pairs?"""
    padded = (next_power_of_2(w.shape[0]) * next_power_of_2(w.shape[1]) for w in weights)
    return 2 * sum(padded) <= ROOM


def add_gated_output(
    z: Tensor, product: Tensor, norm_w: Tensor, norm_b: Tensor, norm_out_w: Tensor, norm_out_b: Tensor,
    p_out: Tensor, g_out: Tensor, out: Tensor,
) -> None:  # fmt: skip
    """That of `pair_triton`."""
    num_pairs = z.shape[:-1].numel()
    N = z.shape[1]
    (width, depth) = p_out.shape
    _add_gated_output[(_programs(num_pairs, z.device),)](
        z, product, out, norm_w, norm_b, norm_out_w, norm_out_b, p_out.contiguous(), g_out.contiguous(),
        num_pairs, N, *strides(z, N), *strides(out, N), product.stride(0),
        FLAT=flat(N, z, out), C=width, BC=next_power_of_2(width), K=depth, BK=next_power_of_2(depth),
        BM=PAIRS, STEP=STEP, num_warps=WARPS,
    )  # fmt: skip


def add_attention_output(
    z: Tensor,
    attended: Tensor,
    norm_w: Tensor,
    norm_b: Tensor,
    gate_w: Tensor,
    out_w: Tensor,
    out: Tensor,
) -> None:
    """That of `pair_triton`."""
    num_pairs = z.shape[:-1].numel()
    N = z.shape[-2]
    (width, depth) = out_w.shape
    _add_attention_output[(_programs(num_pairs, z.device),)](
        z, attended, out, norm_w, norm_b, gate_w.contiguous(), out_w.contiguous(),
        num_pairs, N, *strides(z, N), *strides(out, N), *strides(attended, N),
        FLAT=flat(N, z, attended, out),
        C=width, BC=next_power_of_2(width), K=depth, BM=PAIRS, STEP=STEP, num_warps=WARPS,
    )  # fmt: skip


def _programs(num_pairs: int, device: torch.device) -> int:
    """Two on every multiprocessor, or as many as there are tiles."""
    return min(
        cdiv(num_pairs, PAIRS),
        2 * torch.cuda.get_device_properties(device).multi_processor_count,
    )
