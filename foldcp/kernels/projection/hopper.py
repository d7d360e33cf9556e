"""The output of attention on Hopper: its weights stay on chip, and programs go from tile to
tile.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportAttributeAccessIssue=false
# ruff: noqa: RUF005 (kernels cannot unpack a tuple into another)

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import residual_with_reference_backward
from foldcp.kernels.pair_tiles import (
    HOPPER_PAIRS,
    HOPPER_STEP,
    HOPPER_WARPS,
    add_to_pairs,
    normed_pairs,
    pair_offsets,
    pair_strides,
    persistent_programs,
    rows_are_adjacent,
    sigmoid,
    weight_tile,
)
from foldcp.kernels.projection.reference import (
    AddAttentionOutput,
    AttentionOutputWeights,
)
from foldcp.kernels.projection.triton import AddAttentionOutputTriton
from foldcp.kernels.triton_utils import next_power_of_2


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _add_attention_output(
    Z, A, OUT, W, B, G, P, num_pairs, N, zi, zn, oi, on, ai, an,
    FLAT: tl.constexpr, C: tl.constexpr, BC: tl.constexpr, K: tl.constexpr, BM: tl.constexpr,
    STEP: tl.constexpr,
) -> None:  # fmt: skip
    c = tl.arange(0, BC)
    outs = ()
    gates = ()
    for step in tl.static_range(0, K, STEP):
        k = step + tl.arange(0, STEP)
        outs = outs + (weight_tile(P, c, k, C, K),)
        gates = gates + (weight_tile(G, k, c, K, C),)
    for tile in tl.range(
        tl.program_id(0), tl.cdiv(num_pairs, BM), tl.num_programs(0), num_stages=1
    ):
        first = tile * BM
        pair = first + tl.arange(0, BM)
        real = pair < num_pairs
        place = pair_offsets(first, pair, N, zi, zn, FLAT)
        a_place = pair_offsets(first, pair, N, ai, an, FLAT)
        attended = ()
        for step in tl.static_range(0, K, STEP):
            k = step + tl.arange(0, STEP)
            inside = real[:, None] & (k < K)[None, :]
            attended = attended + (
                tl.load(A + a_place[:, None] + k[None, :], mask=inside, other=0.0),
            )
        x = normed_pairs(Z, W, B, place, real, C, BC).to(G.dtype.element_ty)
        update = tl.zeros((BM, BC), tl.float32)
        for step in tl.static_range(0, K, STEP):
            a = attended[step // STEP].to(tl.float32) * sigmoid(
                tl.dot(x, tl.trans(gates[step // STEP]))
            )
            update = tl.dot(a.to(P.dtype.element_ty), tl.trans(outs[step // STEP]), update)
        add_to_pairs(
            Z,
            OUT,
            place,
            pair_offsets(first, pair, N, oi, on, FLAT),
            c,
            real,
            update,
            C,
        )


def add_attention_output(
    z: Float[Tensor, "*B C"],
    attended: Float[Tensor, "*B K"],
    weights: AttentionOutputWeights,
    out: Float[Tensor, "*B C"],
) -> None:
    """Write z + out_weight (attended * sigmoid(gate LayerNorm(z))) to `out`, which may be z."""
    w = weights
    num_pairs = z.shape[:-1].numel()
    N = z.shape[-2]
    channels, depth = w.out.shape
    _add_attention_output[(persistent_programs(num_pairs, z.device),)](
        z, attended, out, w.norm_weight, w.norm_bias, w.gate.contiguous(), w.out.contiguous(),
        num_pairs, N, *pair_strides(z, N), *pair_strides(out, N), *pair_strides(attended, N),
        FLAT=rows_are_adjacent(N, z, attended, out),
        C=channels, BC=next_power_of_2(channels), K=depth,
        BM=HOPPER_PAIRS, STEP=HOPPER_STEP, num_warps=HOPPER_WARPS,
    )  # fmt: skip


class AddAttentionOutputHopper(AddAttentionOutputTriton):
    """The output of attention in the kernel for Hopper."""

    def __call__(
        self,
        z: Float[Tensor, "*B C"],
        attended: Float[Tensor, "*B K"],
        weights: AttentionOutputWeights,
    ) -> Float[Tensor, "*B C"]:
        return residual_with_reference_backward(
            add_attention_output, AddAttentionOutput(), z, attended, weights
        )
