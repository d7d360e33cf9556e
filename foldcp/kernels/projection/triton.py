"""Projections in Triton: LayerNorm and matrix product in one read of z, channels last or first."""
# pyright: reportMissingImports=false, reportIndexIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import (
    needs_no_grad,
    residual_with_reference_backward,
    with_reference_backward,
)
from foldcp.kernels.pair_tiles import (
    add_to_pairs,
    normed_pairs,
    pair_offsets,
    rows_and_columns,
    saturated_fp16,
    sigmoid,
    weight_tile,
)
from foldcp.kernels.projection.reference import (
    QKV,
    AddAttentionOutput,
    AttentionOutputWeights,
    Projection,
    ProjectionWeights,
)
from foldcp.kernels.triton_utils import cdiv, next_power_of_2, pair_strides, rows_are_adjacent


@dataclass(frozen=True)
class Tile:
    """Tile sizes and pipeline depth of a kernel."""

    pairs: int  # of a program
    step: int  # channels at a time
    warps: int
    stages: int  # of the pipeline


PROJECT = Tile(pairs=64, step=64, warps=4, stages=2)
GATED_PROJECTION = Tile(pairs=128, step=64, warps=8, stages=2)
CHANNELS_FIRST = Tile(pairs=64, step=64, warps=4, stages=1)
ATTENTION_OUTPUT = Tile(pairs=64, step=64, warps=4, stages=2)


@triton.jit
@no_type_check
def _head_offsets(k, head_stride, WIDTH: tl.constexpr) -> tl.tensor:
    """Where channel k of all heads is, of a pair: heads have WIDTH channels and are `head_stride`
    apart, or side by side with WIDTH = 0.
    """
    return k if WIDTH == 0 else (k // WIDTH).to(tl.int64) * head_stride + k % WIDTH


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _project(
    Z, W, B, P, OUT, num_pairs, N, K, zi, zn, oi, on, head_stride,
    FLAT: tl.constexpr, WIDTH: tl.constexpr,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr,
) -> None:  # fmt: skip
    """Into fp16, what lies beyond its range becomes the ends of the range."""
    first = tl.program_id(0) * BM
    pair = first + tl.arange(0, BM)
    real = pair < num_pairs
    c = tl.arange(0, BC)
    x = normed_pairs(Z, W, B, pair_offsets(first, pair, N, zi, zn, FLAT), real, C, BC).to(
        P.dtype.element_ty
    )
    out_place = pair_offsets(first, pair, N, oi, on, FLAT)
    for start in tl.range(0, K, STEP, num_stages=STAGES):
        k = start + tl.arange(0, STEP)
        y = tl.dot(x, tl.trans(weight_tile(P, k, c, K, C)))
        if OUT.dtype.element_ty == tl.float16:
            y = saturated_fp16(y)
        tl.store(
            OUT + out_place[:, None] + _head_offsets(k, head_stride, WIDTH)[None, :],
            y.to(OUT.dtype.element_ty),
            mask=real[:, None] & (k < K)[None, :],
        )


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _project_channels_first(
    Z, MASK, W, B, P, G, OUT, num_pairs, N, K, zi, zn,
    FLAT: tl.constexpr, C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, STEP: tl.constexpr,
    STAGES: tl.constexpr,
    GATED: tl.constexpr, BY_ROW: tl.constexpr,
) -> None:  # fmt: skip
    """Weights times pairs, so that results need no transposition on their way out."""
    first = tl.program_id(0) * BM
    pair = first + tl.arange(0, BM)
    real = pair < num_pairs
    c = tl.arange(0, BC)
    x = tl.trans(
        normed_pairs(Z, W, B, pair_offsets(first, pair, N, zi, zn, FLAT), real, C, BC).to(
            P.dtype.element_ty
        )
    )
    if GATED:
        row, column = rows_and_columns(first, pair, N)
        keep = tl.load(MASK + (row if BY_ROW else column), mask=real, other=0.0).to(tl.float32)[
            None, :
        ]
    for start in tl.range(0, K, STEP, num_stages=STAGES):
        k = start + tl.arange(0, STEP)
        y = tl.dot(weight_tile(P, k, c, K, C), x)
        if GATED:
            y *= sigmoid(tl.dot(weight_tile(G, k, c, K, C), x)) * keep
        place = k.to(tl.int64)[:, None] * num_pairs + pair[None, :]
        tl.store(
            OUT + place,
            y.to(OUT.dtype.element_ty),
            mask=(k < K)[:, None] & real[None, :],
        )


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _add_attention_output(
    Z, A, OUT, W, B, G, P, num_pairs, N, zi, zn, oi, on, ai, an, head_stride,
    FLAT: tl.constexpr, WIDTH: tl.constexpr,
    C: tl.constexpr, BC: tl.constexpr, K: tl.constexpr, BM: tl.constexpr, STEP: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:  # fmt: skip
    first = tl.program_id(0) * BM
    pair = first + tl.arange(0, BM)
    real = pair < num_pairs
    place = pair_offsets(first, pair, N, zi, zn, FLAT)
    c = tl.arange(0, BC)
    x = normed_pairs(Z, W, B, place, real, C, BC).to(G.dtype.element_ty)
    update = tl.zeros((BM, BC), tl.float32)
    a_place = pair_offsets(first, pair, N, ai, an, FLAT)
    for start in tl.range(0, K, STEP, num_stages=STAGES):
        k = start + tl.arange(0, STEP)
        inside = real[:, None] & (k < K)[None, :]
        of_heads = _head_offsets(k, head_stride, WIDTH)[None, :]
        a = tl.load(A + a_place[:, None] + of_heads, mask=inside, other=0.0).to(tl.float32)
        a *= sigmoid(tl.dot(x, tl.trans(weight_tile(G, k, c, K, C))))
        update = tl.dot(a.to(P.dtype.element_ty), tl.trans(weight_tile(P, c, k, C, K)), update)
    add_to_pairs(Z, OUT, place, pair_offsets(first, pair, N, oi, on, FLAT), c, real, update, C)


def project(z: Float[Tensor, "*B C"], weights: ProjectionWeights) -> Float[Tensor, "*B K"]:
    """weight LayerNorm(z)."""
    weight = weights.weight
    out = torch.empty((*z.shape[:-1], len(weight)), dtype=weight.dtype, device=z.device)
    launch_project(z, weights, out)
    return out


def project_heads_first(
    z: Float[Tensor, "*B C"], weights: ProjectionWeights, num_heads: int
) -> Float[Tensor, "H *B D"]:
    """weight LayerNorm(z), of each head."""
    weight = weights.weight
    shape = (num_heads, *z.shape[:-1], len(weight) // num_heads)
    out = torch.empty(shape, dtype=weight.dtype, device=z.device)
    launch_project(z, weights, out[0], out.stride(0))
    return out


def launch_project(
    z: Float[Tensor, "*B C"],
    weights: ProjectionWeights,
    out: Float[Tensor, "*B D"],
    head_stride: int = 0,
) -> None:
    """Write weight LayerNorm(z) to `out`, in its type: all of it, D = K, or, where there is a
    stride from head to head, the D channels of the first head to `out` and others behind it.
    """
    w = weights
    tile = PROJECT
    num_pairs = z.shape[:-1].numel()
    N = z.shape[-2]
    num_out, channels = w.weight.shape
    _project[(cdiv(num_pairs, tile.pairs),)](
        z, w.norm_weight, w.norm_bias, w.weight.contiguous(), out,
        num_pairs, N, num_out, *pair_strides(z, N), *pair_strides(out, N), head_stride,
        FLAT=rows_are_adjacent(N, z, out), WIDTH=out.shape[-1] if head_stride else 0,
        C=channels, BC=next_power_of_2(channels), BM=tile.pairs, STEP=tile.step, STAGES=tile.stages,
        num_warps=tile.warps,
    )  # fmt: skip


def project_channels_first(
    z: Float[Tensor, "*B C"],
    weights: ProjectionWeights,
    gate: tuple[Float[Tensor, "K C"], Float[Tensor, " N"] | Float[Tensor, "I 1"]] | None = None,
) -> Float[Tensor, "K *B"]:
    """weight LayerNorm(z), times the sigmoid of a gate and a mask of columns or of rows where
    there is one.
    """
    w = weights
    num_pairs = z.shape[:-1].numel()
    N = z.shape[-2]
    num_out, channels = w.weight.shape
    out = torch.empty((num_out, *z.shape[:-1]), dtype=w.weight.dtype, device=z.device)
    gate_weight, mask = gate or (w.weight, w.weight)
    assert mask.stride(0) == 1 or gate is None, f"a mask with stride {mask.stride(0)}"
    tile = GATED_PROJECTION if gate else CHANNELS_FIRST
    _project_channels_first[(cdiv(num_pairs, tile.pairs),)](
        z, mask, w.norm_weight, w.norm_bias, w.weight.contiguous(), gate_weight.contiguous(), out,
        num_pairs, N, num_out, *pair_strides(z, N),
        FLAT=rows_are_adjacent(N, z),
        C=channels, BC=next_power_of_2(channels), BM=tile.pairs, STEP=tile.step, STAGES=tile.stages,
        GATED=gate is not None, BY_ROW=mask.dim() == 2, num_warps=tile.warps,
    )  # fmt: skip
    return out


def add_attention_output(
    z: Float[Tensor, "*B C"],
    attended: Float[Tensor, "*B D"],
    weights: AttentionOutputWeights,
    out: Float[Tensor, "*B C"],
    head_stride: int = 0,
) -> None:
    """Write z + out_weight (attended * sigmoid(gate LayerNorm(z))) to `out`, which may be z.

    `attended` is of all heads, side by side, or, where there is a stride from head to head, of the
    first one, behind which are the others.
    """
    w = weights
    tile = ATTENTION_OUTPUT
    num_pairs = z.shape[:-1].numel()
    N = z.shape[-2]
    channels, depth = w.out.shape
    _add_attention_output[(cdiv(num_pairs, tile.pairs),)](
        z, attended, out, w.norm_weight, w.norm_bias, w.gate.contiguous(), w.out.contiguous(),
        num_pairs, N, *pair_strides(z, N), *pair_strides(out, N), *pair_strides(attended, N),
        head_stride,
        FLAT=rows_are_adjacent(N, z, attended, out),
        WIDTH=attended.shape[-1] if head_stride else 0,
        C=channels, BC=next_power_of_2(channels), K=depth,
        BM=tile.pairs, STEP=tile.step, STAGES=tile.stages, num_warps=tile.warps,
    )  # fmt: skip


class ProjectionTriton(Projection):
    """Projections in one kernel each, with the gradients of the reference."""

    def __call__(
        self, z: Float[Tensor, "*B C"], weights: ProjectionWeights
    ) -> Float[Tensor, "*B K"]:
        return with_reference_backward(project, Projection(), z, weights)

    def channels_first(
        self, z: Float[Tensor, "I N C"], weights: ProjectionWeights
    ) -> Float[Tensor, "K I N"]:
        reference = Projection().channels_first
        return with_reference_backward(project_channels_first, reference, z, weights)

    def heads_first(
        self, z: Float[Tensor, "*B C"], weights: ProjectionWeights, num_heads: int
    ) -> Float[Tensor, "H *B D"]:
        return with_reference_backward(
            partial(project_heads_first, num_heads=num_heads),
            partial(Projection().heads_first, num_heads=num_heads),
            z,
            weights,
        )

    def qkv(
        self,
        blocks: list[Float[Tensor, "R J C"]],
        weights: ProjectionWeights,
        num_heads: int,
    ) -> QKV:
        w = weights
        if not needs_no_grad(*blocks, w.norm_weight, w.norm_bias, w.weight):
            return super().qkv(blocks, weights, num_heads)
        columns = [block.shape[1] for block in blocks]
        shape = (len(blocks[0]), sum(columns), len(w.weight))
        stacked = torch.empty(shape, dtype=torch.float16, device=blocks[0].device)
        for block, out in zip(blocks, stacked.split(columns, 1), strict=True):
            self._project_into(block, weights, out)
        q, k, v = stacked.unflatten(-1, (3, num_heads, -1)).unbind(-3)
        return q, k, v

    def _project_into(
        self, z: Float[Tensor, "R J C"], weights: ProjectionWeights, out: Float[Tensor, "R J K"]
    ) -> None:
        launch_project(z, weights, out)

    def bytes_per_row(self, N: int, weights: ProjectionWeights, with_outputs: bool = False) -> int:
        """None: what is normalised stays on chip. Where gradients are wanted, those of the
        reference, which makes them.
        """
        return super().bytes_per_row(N, weights, with_outputs) if torch.is_grad_enabled() else 0


class AddAttentionOutputTriton(AddAttentionOutput):
    """The output of attention in one kernel, with the gradient of the reference."""

    def __call__(
        self,
        z: Float[Tensor, "*B C"],
        attended: Float[Tensor, "*B K"],
        weights: AttentionOutputWeights,
    ) -> Float[Tensor, "*B C"]:
        return residual_with_reference_backward(
            add_attention_output, AddAttentionOutput(), z, attended, weights
        )

    def heads_first(
        self,
        z: Float[Tensor, "*B C"],
        attended: Float[Tensor, "H *B D"],
        weights: AttentionOutputWeights,
    ) -> Float[Tensor, "*B C"]:
        def add_output(z: Tensor, attended: Tensor, w: AttentionOutputWeights, out: Tensor) -> None:
            add_attention_output(z, attended[0], w, out, attended.stride(0))

        reference = AddAttentionOutput().heads_first
        return residual_with_reference_backward(add_output, reference, z, attended, weights)
