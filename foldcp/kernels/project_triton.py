"""The Triton kernels of projections: LayerNorm and matrix product in one read of z, channels
last or first.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.pair_triton import (
    _normed_pairs,
    _place,
    _sigmoid,
    _split,
    _weight,
    flat,
    strides,
)
from foldcp.kernels.triton_utils import cdiv, next_power_of_2

TILES = {  # pairs a program, channels a step, warps, stages of the pipeline
    "project": (64, 64, 4, 2),
    "gated projection": (128, 64, 8, 2),
    "bias": (64, 64, 4, 1),
}


@triton.jit
@no_type_check
def _narrowed(x, half) -> tl.tensor:
    """x in bf16 or, where `half`, in fp16, what lies beyond its range as the ends of the range;
    both called bf16.
    """
    return tl.inline_asm_elementwise(
        """{
            .reg .b32 as_bf16, as_half, least, most;
            .reg .pred wanted;
            cvt.rn.bf16x2.f32 as_bf16, $2, $1;
            cvt.rn.f16x2.f32 as_half, $2, $1;
            mov.b32 most, 0x7bff7bff;
            mov.b32 least, 0xfbfffbff;
            min.f16x2 as_half, as_half, most;
            max.f16x2 as_half, as_half, least;
            setp.ne.b32 wanted, $3, 0;
            selp.b32 $0, as_half, as_bf16, wanted;
        }""",
        "=r,f,f,r,r", [x, half.to(tl.int32)], dtype=tl.bfloat16, is_pure=True, pack=2,
    )  # fmt: skip


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _project(
    Z, W, B, P, OUT, num_pairs, N, K, zi, zn, oi, on,
    FLAT: tl.constexpr,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr, HALF: tl.constexpr,
) -> None:  # fmt: skip
    """Channels from HALF on, a multiple of STEP, leave as the bits of fp16."""
    first = tl.program_id(0) * BM
    pair = first + tl.arange(0, BM)
    real = pair < num_pairs
    c = tl.arange(0, BC)
    x = _normed_pairs(Z, W, B, _place(first, pair, N, zi, zn, FLAT), real, C, BC).to(
        P.dtype.element_ty
    )
    out_place = _place(first, pair, N, oi, on, FLAT)
    for start in tl.range(0, K, STEP, num_stages=STAGES):
        k = start + tl.arange(0, STEP)
        y = tl.dot(x, tl.trans(_weight(P, k, c, K, C)))
        out = y.to(OUT.dtype.element_ty)
        if HALF is not None:
            out = _narrowed(y, start >= HALF)
        tl.store(
            OUT + out_place[:, None] + k[None, :],
            out,
            mask=real[:, None] & (k < K)[None, :],
        )


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _project_channels_first(
    Z, MASK, W, B, P, G, OUT, num_pairs, N, K, zi, zn,
    FLAT: tl.constexpr, C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr,
    GATED: tl.constexpr, BY_ROW: tl.constexpr,
) -> None:  # fmt: skip
    """Weights times pairs, so that results need no transposition on their way out."""
    first = tl.program_id(0) * BM
    pair = first + tl.arange(0, BM)
    real = pair < num_pairs
    c = tl.arange(0, BC)
    x = tl.trans(
        _normed_pairs(Z, W, B, _place(first, pair, N, zi, zn, FLAT), real, C, BC).to(
            P.dtype.element_ty
        )
    )
    if GATED:
        row, column = _split(first, pair, N)
        keep = tl.load(MASK + (row if BY_ROW else column), mask=real, other=0.0).to(tl.float32)[
            None, :
        ]
    for start in tl.range(0, K, STEP, num_stages=STAGES):
        k = start + tl.arange(0, STEP)
        y = tl.dot(_weight(P, k, c, K, C), x)
        if GATED:
            y *= _sigmoid(tl.dot(_weight(G, k, c, K, C), x)) * keep
        place = k.to(tl.int64)[:, None] * num_pairs + pair[None, :]
        tl.store(
            OUT + place,
            y.to(OUT.dtype.element_ty),
            mask=(k < K)[:, None] & real[None, :],
        )


def project(
    z: Float[Tensor, "*B C"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    weight: Float[Tensor, "K C"],
) -> Float[Tensor, "*B K"]:
    """weight LayerNorm(z)."""
    out = torch.empty((*z.shape[:-1], len(weight)), dtype=weight.dtype, device=z.device)
    _launch(z, norm_w, norm_b, weight, out)
    return out


def project_parts(
    parts: list[Float[Tensor, "R J C"]],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    weight: Float[Tensor, "K C"],
    half_from: int,
) -> Float[Tensor, "R N K"]:
    """The same of rows that come in parts, N columns in all; channels from `half_from` on hold
    fp16, whatever the type says.
    """
    first = parts[0]
    columns = [part.shape[1] for part in parts]
    out = torch.empty(
        (len(first), sum(columns), len(weight)), dtype=weight.dtype, device=first.device
    )
    for part, some in zip(parts, out.split(columns, 1), strict=True):
        _launch(part, norm_w, norm_b, weight, some, half_from)
    return out


def _launch(
    z: Tensor,
    norm_w: Tensor,
    norm_b: Tensor,
    weight: Tensor,
    out: Tensor,
    half: int | None = None,
) -> None:
    num_pairs = z.shape[:-1].numel()
    N = z.shape[-2]
    (num_out, width) = weight.shape
    tile, step, warps, stages = TILES["project"]
    assert half is None or half % step == 0, f"{half} channels are no multiple of {step}"
    _project[(cdiv(num_pairs, tile),)](
        z, norm_w, norm_b, weight.contiguous(), out, num_pairs, N, num_out, *strides(z, N), *strides(out, N),
        FLAT=flat(N, z, out),
        C=width, BC=next_power_of_2(width), BM=tile, STEP=step, STAGES=stages, HALF=half, num_warps=warps,
    )  # fmt: skip


def project_channels_first(
    z: Float[Tensor, "*B C"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    weight: Float[Tensor, "K C"],
    gate: tuple[Float[Tensor, "K C"], Float[Tensor, " N"] | Float[Tensor, "I 1"]] | None = None,
) -> Float[Tensor, "K *B"]:
    """weight LayerNorm(z) times the sigmoid of a gate and a mask of columns or of rows where
    there is one.
    """
    num_pairs = z.shape[:-1].numel()
    N = z.shape[-2]
    (num_out, width) = weight.shape
    out = torch.empty((num_out, *z.shape[:-1]), dtype=weight.dtype, device=z.device)
    gate_w, mask = gate or (weight, weight)
    assert mask.stride(0) == 1 or gate is None, f"a mask with stride {mask.stride(0)}"
    tile, step, warps, stages = TILES["gated projection" if gate else "bias"]
    _project_channels_first[(cdiv(num_pairs, tile),)](
        z, mask, norm_w, norm_b, weight.contiguous(), gate_w.contiguous(), out,
        num_pairs, N, num_out, *strides(z, N),
        FLAT=flat(N, z), C=width, BC=next_power_of_2(width), BM=tile, STEP=step, STAGES=stages,
        GATED=gate is not None, BY_ROW=mask.dim() == 2, num_warps=warps,
    )  # fmt: skip
    return out
