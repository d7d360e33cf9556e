"""The Triton kernels of the pair updates: each reads a tile of z once, keeps it on chip, and
writes once.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.dispatch import hopper
from foldcp.kernels.residual import EPSILON
from foldcp.kernels.triton_utils import cdiv, next_power_of_2

LOG2E = tl.constexpr(1.4426950408889634)
EPS = tl.constexpr(EPSILON)
TILES = {  # pairs a program, channels a step, warps, stages of the pipeline
    "add_gated_output": (64, 32, 4, 2),
    "add_attention_output": (64, 64, 4, 2),
    "add_transition": (64, 64, 4, 2),
}


@triton.jit
@no_type_check
def _reciprocal(x) -> tl.tensor:
    """1 / x to 1 ulp; the division operator spends four more instructions on the ends of the
    range.
    """
    return tl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )  # fmt: skip


@triton.jit
@no_type_check
def _sigmoid(x) -> tl.tensor:
    return _reciprocal(1.0 + tl.exp2(-LOG2E * x))


@triton.jit
@no_type_check
def _place(first, pair, N, stride_i, stride_n, FLAT: tl.constexpr) -> tl.tensor:
    """Where the channels of each pair begin, in a tile that begins with pair `first`; FLAT: rows
    follow each other.
    """
    if FLAT:
        place = first.to(tl.int64) * stride_n + (pair - first) * stride_n
    else:
        row, column = _split(first, pair, N)
        place = row.to(tl.int64) * stride_i + column.to(tl.int64) * stride_n
    return place


@triton.jit
@no_type_check
def _split(first, pair, N) -> tuple[tl.tensor, tl.tensor]:
    """Rows and columns: one division for the tile, and for a pair a product with 1 / N, exact at
    this size.
    """
    row = first // N
    column = pair - row * N
    more = ((column + 0.5) * (1.0 / N)).to(tl.int32)
    return row + more, column - more * N


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
    weight = _vector(W, c, C)[None, :]
    bias = _vector(B, c, C)[None, :]
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
    tl.store(
        OUT + out_place[:, None] + channel[None, :],
        (z + update).to(OUT.dtype.element_ty),
        mask=inside,
    )


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _add_gated_output(
    Z, PRODUCT, OUT, W, B, W_OUT, B_OUT, P, G, num_pairs, N, zi, zn, oi, on, pk,
    FLAT: tl.constexpr,
    C: tl.constexpr, BC: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, BM: tl.constexpr, STEP: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:  # fmt: skip
    first = tl.program_id(0) * BM
    pair = first + tl.arange(0, BM)
    real = pair < num_pairs
    place = _place(first, pair, N, zi, zn, FLAT)
    out_place = _place(first, pair, N, oi, on, FLAT)
    c = tl.arange(0, BC)
    k = tl.arange(0, BK)
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
    FLAT: tl.constexpr,
    C: tl.constexpr, BC: tl.constexpr, K: tl.constexpr, BM: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr,
) -> None:  # fmt: skip
    first = tl.program_id(0) * BM
    pair = first + tl.arange(0, BM)
    real = pair < num_pairs
    place = _place(first, pair, N, zi, zn, FLAT)
    c = tl.arange(0, BC)
    x = _normed_pairs(Z, W, B, place, real, C, BC).to(G.dtype.element_ty)
    update = tl.zeros((BM, BC), tl.float32)
    a_place = _place(first, pair, N, ai, an, FLAT)
    for start in tl.range(0, K, STEP, num_stages=STAGES):
        k = start + tl.arange(0, STEP)
        inside = real[:, None] & (k < K)[None, :]
        a = tl.load(A + a_place[:, None] + k[None, :], mask=inside, other=0.0).to(tl.float32)
        a *= _sigmoid(tl.dot(x, tl.trans(_weight(G, k, c, K, C))))
        update = tl.dot(a.to(P.dtype.element_ty), tl.trans(_weight(P, c, k, C, K)), update)
    _add(Z, OUT, place, _place(first, pair, N, oi, on, FLAT), c, real, update, C)


def strides(x: Float[Tensor, "*B C"], N: int) -> tuple[int, int]:
    """Distances from row to row and from column to column; anything contiguous counts as rows of
    N pairs.
    """
    if x.is_contiguous():
        return N * x.shape[-1], x.shape[-1]
    assert x.dim() == 3 and x.stride(2) == 1 and x.shape[1] == N, (
        f"strides {x.stride()} of {tuple(x.shape)}"
    )
    return x.stride(0), x.stride(1)


def flat(N: int, *arrays: Tensor) -> bool:
    """Do the rows of all these follow each other?"""
    return all(i == N * n for i, n in (strides(x, N) for x in arrays))


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
    assert product.stride()[1:] == (z.shape[1], 1), (
        f"strides {product.stride()}: rows must follow each other"
    )
    if hopper(z.device):
        from foldcp.kernels import pair_hopper

        if pair_hopper.have_room(p_out, g_out):
            pair_hopper.add_gated_output(
                z, product, norm_w, norm_b, norm_out_w, norm_out_b, p_out, g_out, out
            )
            return
    num_pairs = z.shape[:-1].numel()
    N = z.shape[1]
    (width, depth) = p_out.shape
    tile, step, warps, stages = TILES["add_gated_output"]
    _add_gated_output[(cdiv(num_pairs, tile),)](
        z, product, out, norm_w, norm_b, norm_out_w, norm_out_b, p_out.contiguous(), g_out.contiguous(),
        num_pairs, N, *strides(z, N), *strides(out, N), product.stride(0),
        FLAT=flat(N, z, out), C=width, BC=next_power_of_2(width), K=depth, BK=next_power_of_2(depth),
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
    if hopper(z.device):
        from foldcp.kernels import pair_hopper

        if pair_hopper.have_room(gate_w, out_w):
            pair_hopper.add_attention_output(z, attended, norm_w, norm_b, gate_w, out_w, out)
            return
    num_pairs = z.shape[:-1].numel()
    N = z.shape[-2]
    (width, depth) = out_w.shape
    tile, step, warps, stages = TILES["add_attention_output"]
    _add_attention_output[(cdiv(num_pairs, tile),)](
        z, attended, out, norm_w, norm_b, gate_w.contiguous(), out_w.contiguous(),
        num_pairs, N, *strides(z, N), *strides(out, N), *strides(attended, N),
        FLAT=flat(N, z, attended, out),
        C=width, BC=next_power_of_2(width), K=depth, BM=tile, STEP=step, STAGES=stages, num_warps=warps,
    )  # fmt: skip
