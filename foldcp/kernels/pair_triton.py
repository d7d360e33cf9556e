"""The Triton kernels of the pair updates: each reads a tile of z once, keeps it on chip, and writes once."""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.residual import EPSILON

LOG2E = tl.constexpr(1.4426950408889634)
EPS = tl.constexpr(EPSILON)
TILES = {  # pairs a program, channels a step, warps, stages of the pipeline
    "project": (64, 64, 4, 2),
    "gated projection": (128, 64, 8, 2),
    "bias": (128, 64, 8, 1),
    "add_gated_output": (64, 32, 4, 2),
    "add_attention_output": (64, 64, 4, 2),
    "add_transition": (64, 64, 4, 2),
}


@triton.jit
@no_type_check
def _reciprocal(x) -> tl.tensor:
    """1 / x to 1 ulp; the division operator spends four more instructions on the ends of the range."""
    return tl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )  # fmt: skip


@triton.jit
@no_type_check
def _sigmoid(x) -> tl.tensor:
    return _reciprocal(1.0 + tl.exp2(-LOG2E * x))


@triton.jit
@no_type_check
def _narrowed(x, half) -> tl.tensor:
    """x in bf16 or, where `half`, in fp16, what lies beyond its range as the ends of the range; both called bf16."""
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


@triton.jit
@no_type_check
def _tile(BM: tl.constexpr) -> tl.tensor:
    """The pairs of this program, counted along the rows."""
    return tl.program_id(0) * BM + tl.arange(0, BM)


@triton.jit
@no_type_check
def _place(pair, N, stride_i, stride_n) -> tl.tensor:
    """Where the channels of each pair begin."""
    return (pair // N).to(tl.int64) * stride_i + (pair % N).to(tl.int64) * stride_n


@triton.jit
@no_type_check
def _normed(x, inside, weight, bias, C: tl.constexpr, DIM: tl.constexpr) -> tl.tensor:
    """LayerNorm of x over DIM, where `inside` marks its C real channels; 0 in the others."""
    mean = tl.expand_dims(tl.sum(x, DIM) / C, DIM)
    centred = tl.where(inside, x - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, DIM) / C + EPS)
    return centred * tl.expand_dims(scale, DIM) * weight + bias


@triton.jit
@no_type_check
def _vector(X, index, size) -> tl.tensor:
    return tl.load(X + index, mask=index < size, other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def _normed_pairs(Z, W, B, place, real, C: tl.constexpr, BC: tl.constexpr) -> tl.tensor:
    """LayerNorm of the pairs at `place`, in fp32."""
    c = tl.arange(0, BC)
    inside = (c < C)[None, :]
    x = tl.load(Z + place[:, None] + c[None, :], mask=real[:, None] & inside, other=0.0)
    weight, bias = _vector(W, c, C)[None, :], _vector(B, c, C)[None, :]
    return _normed(x.to(tl.float32), inside, weight, bias, C, 1)


@triton.jit
@no_type_check
def _weight(W, rows, cols, num_rows, num_cols) -> tl.tensor:
    """rows x cols of a matrix [num_rows, num_cols], zeros outside."""
    inside = (rows < num_rows)[:, None] & (cols < num_cols)[None, :]
    return tl.load(W + rows[:, None] * num_cols + cols[None, :], mask=inside, other=0.0)


@triton.jit
@no_type_check
def _add(Z, OUT, place, out_place, channel, real, update, C: tl.constexpr) -> None:
    inside = real[:, None] & (channel < C)[None, :]
    z = tl.load(Z + place[:, None] + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(OUT + out_place[:, None] + channel[None, :], (z + update).to(OUT.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _project(
    Z, W, B, P, OUT, num_pairs, N, K, zi, zn,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr, HALF: tl.constexpr,
) -> None:  # fmt: skip
    """Channels from HALF on, a multiple of STEP, leave as the bits of fp16."""
    pair = _tile(BM)
    real = pair < num_pairs
    c = tl.arange(0, BC)
    x = _normed_pairs(Z, W, B, _place(pair, N, zi, zn), real, C, BC).to(P.dtype.element_ty)
    for start in tl.range(0, K, STEP, num_stages=STAGES):
        k = start + tl.arange(0, STEP)
        y = tl.dot(x, tl.trans(_weight(P, k, c, K, C)))
        if HALF is not None:
            out = _narrowed(y, start >= HALF)
        else:
            out = y.to(OUT.dtype.element_ty)
        place = pair.to(tl.int64)[:, None] * K + k[None, :]
        tl.store(OUT + place, out, mask=real[:, None] & (k < K)[None, :])


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _project_channels_first(
    Z, MASK, W, B, P, G, OUT, num_pairs, N, K, zi, zn,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr,
    GATED: tl.constexpr,
) -> None:  # fmt: skip
    """Weights times pairs, so that results need no transposition on their way out."""
    pair = _tile(BM)
    real = pair < num_pairs
    c = tl.arange(0, BC)
    x = tl.trans(_normed_pairs(Z, W, B, _place(pair, N, zi, zn), real, C, BC).to(P.dtype.element_ty))
    if GATED:
        keep = tl.load(MASK + pair % N).to(tl.float32)[None, :]
    for start in tl.range(0, K, STEP, num_stages=STAGES):
        k = start + tl.arange(0, STEP)
        y = tl.dot(_weight(P, k, c, K, C), x)
        if GATED:
            y *= _sigmoid(tl.dot(_weight(G, k, c, K, C), x)) * keep
        place = k.to(tl.int64)[:, None] * num_pairs + pair[None, :]
        tl.store(OUT + place, y.to(OUT.dtype.element_ty), mask=(k < K)[:, None] & real[None, :])


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _add_gated_output(
    Z, PRODUCT, OUT, W, B, W_OUT, B_OUT, P, G, num_pairs, N, zi, zn, oi, on, pk,
    C: tl.constexpr, BC: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, BM: tl.constexpr, STEP: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:  # fmt: skip
    pair = _tile(BM)
    real = pair < num_pairs
    place, out_place = _place(pair, N, zi, zn), _place(pair, N, oi, on)
    c, k = tl.arange(0, BC), tl.arange(0, BK)
    x = _normed_pairs(Z, W, B, place, real, C, BC).to(G.dtype.element_ty)
    inside = (k < K)[:, None]
    y_place = k.to(tl.int64)[:, None] * pk + pair[None, :]
    y = tl.load(PRODUCT + y_place, mask=inside & real[None, :], other=0.0).to(tl.float32)
    y = _normed(y, inside, _vector(W_OUT, k, K)[:, None], _vector(B_OUT, k, K)[:, None], K, 0)
    y = tl.trans(y.to(P.dtype.element_ty))
    for start in tl.range(0, C, STEP, num_stages=STAGES):
        channel = start + tl.arange(0, STEP)
        update = tl.dot(y, tl.trans(_weight(P, channel, k, C, K)))
        update *= _sigmoid(tl.dot(x, tl.trans(_weight(G, channel, c, C, C))))
        _add(Z, OUT, place, out_place, channel, real, update, C)


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _add_attention_output(
    Z, A, OUT, W, B, G, P, num_pairs, N, zi, zn, oi, on, ai, an,
    C: tl.constexpr, BC: tl.constexpr, K: tl.constexpr, BM: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr,
) -> None:  # fmt: skip
    pair = _tile(BM)
    real = pair < num_pairs
    place = _place(pair, N, zi, zn)
    c = tl.arange(0, BC)
    x = _normed_pairs(Z, W, B, place, real, C, BC).to(G.dtype.element_ty)
    update = tl.zeros((BM, BC), tl.float32)
    a_place = _place(pair, N, ai, an)
    for start in tl.range(0, K, STEP, num_stages=STAGES):
        k = start + tl.arange(0, STEP)
        inside = real[:, None] & (k < K)[None, :]
        a = tl.load(A + a_place[:, None] + k[None, :], mask=inside, other=0.0).to(tl.float32)
        a *= _sigmoid(tl.dot(x, tl.trans(_weight(G, k, c, K, C))))
        update = tl.dot(a.to(P.dtype.element_ty), tl.trans(_weight(P, c, k, C, K)), update)
    _add(Z, OUT, place, _place(pair, N, oi, on), c, real, update, C)


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _add_transition(
    Z, OUT, W, B, W1, W2, W3, num_pairs, N, zi, zn, oi, on,
    C: tl.constexpr, BC: tl.constexpr, E: tl.constexpr, BM: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr,
) -> None:  # fmt: skip
    pair = _tile(BM)
    real = pair < num_pairs
    place = _place(pair, N, zi, zn)
    c = tl.arange(0, BC)
    x = _normed_pairs(Z, W, B, place, real, C, BC).to(W1.dtype.element_ty)
    update = tl.zeros((BM, BC), tl.float32)
    for start in tl.range(0, E, STEP, num_stages=STAGES):
        e = start + tl.arange(0, STEP)
        first = tl.dot(x, tl.trans(_weight(W1, e, c, E, C)))
        hidden = first * _sigmoid(first) * tl.dot(x, tl.trans(_weight(W2, e, c, E, C)))
        update = tl.dot(hidden.to(W3.dtype.element_ty), tl.trans(_weight(W3, c, e, C, E)), update)
    _add(Z, OUT, place, _place(pair, N, oi, on), c, real, update, C)


def _strides(x: Float[Tensor, "*B C"], N: int) -> tuple[int, int]:
    """Distances from row to row and from column to column; anything contiguous counts as rows of N pairs."""
    if x.is_contiguous():
        return N * x.shape[-1], x.shape[-1]
    assert x.dim() == 3 and x.stride(2) == 1 and x.shape[1] == N, f"strides {x.stride()} of {tuple(x.shape)}"
    return x.stride(0), x.stride(1)


def project(
    z: Float[Tensor, "*B C"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    weight: Float[Tensor, "K C"],
    half_from: int | None = None,
) -> Float[Tensor, "*B K"]:
    """weight LayerNorm(z); channels from `half_from` on, if given, hold fp16, whatever the type says."""
    num_pairs, N, (num_out, width) = z.shape[:-1].numel(), z.shape[-2], weight.shape
    out = torch.empty((*z.shape[:-1], num_out), dtype=weight.dtype, device=z.device)
    tile, step, warps, stages = TILES["project"]
    assert half_from is None or half_from % step == 0, f"{half_from} channels are no multiple of {step}"
    _project[(triton.cdiv(num_pairs, tile),)](
        z, norm_w, norm_b, weight.contiguous(), out, num_pairs, N, num_out, *_strides(z, N),
        C=width, BC=triton.next_power_of_2(width), BM=tile, STEP=step, STAGES=stages, HALF=half_from, num_warps=warps,
    )  # fmt: skip
    return out


def project_channels_first(
    z: Float[Tensor, "*B C"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    weight: Float[Tensor, "K C"],
    gate: tuple[Float[Tensor, "K C"], Float[Tensor, " N"]] | None = None,
) -> Float[Tensor, "K *B"]:
    """weight LayerNorm(z) times the sigmoid of a gate and a mask where there is one."""
    num_pairs, N, (num_out, width) = z.shape[:-1].numel(), z.shape[-2], weight.shape
    out = torch.empty((num_out, *z.shape[:-1]), dtype=weight.dtype, device=z.device)
    gate_w, mask = gate or (weight, weight)
    tile, step, warps, stages = TILES["gated projection" if gate else "bias"]
    _project_channels_first[(triton.cdiv(num_pairs, tile),)](
        z, mask, norm_w, norm_b, weight.contiguous(), gate_w.contiguous(), out,
        num_pairs, N, num_out, *_strides(z, N),
        C=width, BC=triton.next_power_of_2(width), BM=tile, STEP=step, STAGES=stages,
        GATED=gate is not None, num_warps=warps,
    )  # fmt: skip
    return out


def add_gated_output(
    z: Float[Tensor, "I N C"],
    product: Float[Tensor, "K I N"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    norm_out_w: Float[Tensor, " K"],
    norm_out_b: Float[Tensor, " K"],
    p_out: Float[Tensor, "C K"],
    g_out: Float[Tensor, "C C"],
    out: Float[Tensor, "I N C"],
) -> None:
    """out = z + p_out(LayerNorm_out(product)) sigmoid(g_out LayerNorm(z)); out may be z."""
    num_pairs, N, (width, depth) = z.shape[:-1].numel(), z.shape[1], p_out.shape
    assert product.stride()[1:] == (N, 1), f"strides {product.stride()}: rows must follow each other"
    tile, step, warps, stages = TILES["add_gated_output"]
    _add_gated_output[(triton.cdiv(num_pairs, tile),)](
        z, product, out, norm_w, norm_b, norm_out_w, norm_out_b, p_out.contiguous(), g_out.contiguous(),
        num_pairs, N, *_strides(z, N), *_strides(out, N), product.stride(0),
        C=width, BC=triton.next_power_of_2(width), K=depth, BK=triton.next_power_of_2(depth),
        BM=tile, STEP=step, STAGES=stages, num_warps=warps,
    )  # fmt: skip


def add_attention_output(
    z: Float[Tensor, "*B C"],
    attended: Float[Tensor, "*B K"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    gate_w: Float[Tensor, "K C"],
    out_w: Float[Tensor, "C K"],
    out: Float[Tensor, "*B C"],
) -> None:
    """out = z + out_w (attended * sigmoid(gate_w LayerNorm(z))); out may be z."""
    num_pairs, N, (width, depth) = z.shape[:-1].numel(), z.shape[-2], out_w.shape
    tile, step, warps, stages = TILES["add_attention_output"]
    _add_attention_output[(triton.cdiv(num_pairs, tile),)](
        z, attended, out, norm_w, norm_b, gate_w.contiguous(), out_w.contiguous(),
        num_pairs, N, *_strides(z, N), *_strides(out, N), *_strides(attended, N),
        C=width, BC=triton.next_power_of_2(width), K=depth, BM=tile, STEP=step, STAGES=stages, num_warps=warps,
    )  # fmt: skip


def add_transition(
    z: Float[Tensor, "*B C"],
    norm_w: Float[Tensor, " C"],
    norm_b: Float[Tensor, " C"],
    w1: Float[Tensor, "E C"],
    w2: Float[Tensor, "E C"],
    w3: Float[Tensor, "C E"],
    out: Float[Tensor, "*B C"],
) -> None:
    """out = z + w3 (silu(w1 x) * (w2 x)) with x = LayerNorm(z); out may be z."""
    num_pairs, N, (hidden, width) = z.shape[:-1].numel(), z.shape[-2], w1.shape
    tile, step, warps, stages = TILES["add_transition"]
    _add_transition[(triton.cdiv(num_pairs, tile),)](
        z, out, norm_w, norm_b, w1.contiguous(), w2.contiguous(), w3.contiguous(),
        num_pairs, N, *_strides(z, N), *_strides(out, N),
        C=width, BC=triton.next_power_of_2(width), E=hidden, BM=tile, STEP=step, STAGES=stages, num_warps=warps,
    )  # fmt: skip
