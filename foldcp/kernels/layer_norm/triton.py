"""LayerNorm in Triton: forward and backward read a row once and keep it on chip.

PyTorch's kernels are made for many channels: on rows of 64 to 768 they take several times as long
as memory does.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportAttributeAccessIssue=false

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from foldcp.kernels.pair_tiles import EPS, pair_offsets, vector
from foldcp.kernels.triton_utils import cdiv, next_power_of_2, pair_strides, rows_are_adjacent

WARPS = 4
TILE = 4096  # elements at a time
# The gradient has four arrays of a tile in registers, and these hold so many programs at once.
GRADIENT_TILE = 2048
PROGRAMS = 4  # on each multiprocessor
SIZES = ["num_rows", "num_tiles", "N"]  # one compilation for all of them


@triton.jit
@no_type_check
def _standardized(x, inside, C: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Rows with mean 0 and variance 1, and the factors that made it 1.

    `rest` is what rounding left of the mean: rows whose variance is far below their mean come out
    as exactly as others, and constant rows as 0.
    """
    mean = tl.sum(x, 1) / C
    centred = tl.where(inside, x - mean[:, None], 0.0)
    rest = tl.sum(centred, 1) / C
    variance = tl.sum(centred * centred, 1) / C - rest * rest
    scale = tl.rsqrt(variance + EPS)[:, None]
    return (centred - rest[:, None]) * scale, scale


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def _forward(
    X, W, B, OUT, num_rows, N, xi, xn,
    FLAT: tl.constexpr, C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr,
) -> None:  # fmt: skip
    first = tl.program_id(0) * BM
    row = first + tl.arange(0, BM)
    c = tl.arange(0, BC)
    inside = (c < C)[None, :]
    real = (row < num_rows)[:, None] & inside
    place = pair_offsets(first, row, N, xi, xn, FLAT)
    x = tl.load(X + place[:, None] + c[None, :], mask=real, other=0.0).to(tl.float32)
    normed, _ = _standardized(x, inside, C)
    out = normed * vector(W, c, C)[None, :] + vector(B, c, C)[None, :]
    place = pair_offsets(first, row, N, 0, C, True)
    tl.store(OUT + place[:, None] + c[None, :], out, mask=real)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def _gradient(
    X, W, DY, DX, PARTS, num_rows, num_tiles, N, xi, xn, yi, yn, di, dn,
    FLAT: tl.constexpr, C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr,
) -> None:  # fmt: skip
    """dx, and this program's part of the gradients of weight and bias, [2, programs, C]."""
    program = tl.program_id(0)
    c = tl.arange(0, BC)
    inside = (c < C)[None, :]
    weight = vector(W, c, C)[None, :]
    dweight = tl.zeros((BM, BC), tl.float32)
    dbias = tl.zeros((BM, BC), tl.float32)
    num_programs = tl.num_programs(0)
    for index in tl.range(tl.cdiv(num_tiles - program, num_programs)):
        first = (program + index * num_programs) * BM
        row = first + tl.arange(0, BM)
        real = (row < num_rows)[:, None] & inside
        place = pair_offsets(first, row, N, xi, xn, FLAT)
        x = tl.load(X + place[:, None] + c[None, :], mask=real, other=0.0).to(tl.float32)
        place = pair_offsets(first, row, N, yi, yn, FLAT)
        dy = tl.load(DY + place[:, None] + c[None, :], mask=real, other=0.0).to(tl.float32)
        normed, scale = _standardized(x, inside, C)
        weighted = dy * weight
        mean = (tl.sum(weighted, 1) / C)[:, None]
        slope = (tl.sum(weighted * normed, 1) / C)[:, None]
        dx = (weighted - mean - normed * slope) * scale
        place = pair_offsets(first, row, N, di, dn, FLAT)
        tl.store(DX + place[:, None] + c[None, :], dx.to(DX.dtype.element_ty), mask=real)
        dweight += dy * normed
        dbias += dy
    parts = PARTS + program * C + c
    tl.store(parts, tl.sum(dweight, 0), mask=c < C)
    tl.store(parts + num_programs * C, tl.sum(dbias, 0), mask=c < C)


def forward(
    x: Float[Tensor, "*B C"], weight: Float[Tensor, " C"], bias: Float[Tensor, " C"]
) -> Float[Tensor, "*B C"]:
    """LayerNorm of x, in fp32."""
    out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    x = _pairs(x)
    I, N, C = x.shape
    if I * N == 0:
        return out
    rows = TILE // next_power_of_2(C)
    _forward[(cdiv(I * N, rows),)](
        x, weight.contiguous(), bias.contiguous(), out, I * N, N, *pair_strides(x, N),
        FLAT=I == 1 or rows_are_adjacent(N, x),
        C=C, BC=next_power_of_2(C), BM=rows, num_warps=WARPS,
    )  # fmt: skip
    return out


def gradient(
    x: Float[Tensor, "*B C"],
    weight: Float[Tensor, " C"],
    dy: Float[Tensor, "*B C"],
    max_programs: int,
) -> tuple[Float[Tensor, "*B C"], Float[Tensor, " C"], Float[Tensor, " C"]]:
    """dx, in the type of x, and the gradients of weight and bias, in fp32."""
    shape = x.shape
    x, dy = _pairs(x), _pairs(dy)
    I, N, C = x.shape
    rows = GRADIENT_TILE // next_power_of_2(C)
    num_tiles = cdiv(I * N, rows)
    num_programs = min(num_tiles, max_programs)
    dx = torch.empty_like(x)
    parts = torch.empty((2, num_programs, C), dtype=torch.float32, device=x.device)
    if num_programs:
        _gradient[(num_programs,)](
            x, weight.contiguous(), dy, dx, parts, I * N, num_tiles, N,
            *pair_strides(x, N), *pair_strides(dy, N), *pair_strides(dx, N),
            FLAT=I == 1 or rows_are_adjacent(N, x, dy, dx),
            C=C, BC=next_power_of_2(C), BM=rows, num_warps=WARPS,
        )  # fmt: skip
    dweight, dbias = parts.sum(1)
    return dx.view(shape), dweight, dbias


def _pairs(x: Float[Tensor, "*B C"]) -> Float[Tensor, "I N C"]:
    """Rows with adjacent channels; a copy where channels are apart, but not of a transpose."""
    if x.dim() != 3:
        x = x.reshape(1, -1, x.shape[-1])
    return x if x.stride(-1) == 1 else x.contiguous()


@cache
def _max_programs(device: torch.device) -> int:
    return PROGRAMS * torch.cuda.get_device_properties(device).multi_processor_count


class LayerNormTriton(torch.autograd.Function):
    """LayerNorm whose backward computes the statistics again: all it keeps is its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias_dtype = bias.dtype
        return forward(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        dx, dweight, dbias = gradient(x, weight, dy, _max_programs(x.device))
        return dx, dweight.to(weight.dtype), dbias.to(ctx.bias_dtype)
