"""The gated output of triangle multiplication on Hopper: its weights stay on chip, and programs go
from tile to tile.
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
    normed,
    normed_pairs,
    pair_offsets,
    pair_strides,
    persistent_programs,
    rows_are_adjacent,
    sigmoid,
    vector,
    weight_tile,
)
from foldcp.kernels.triangle_multiplication.reference import (
    AddGatedOutput,
    GatedOutputWeights,
)
from foldcp.kernels.triangle_multiplication.triton import (
    AddGatedOutputTriton,
    check_product,
)
from foldcp.kernels.triton_utils import next_power_of_2


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _add_gated_output(
    Z, PRODUCT, OUT, W, B, W_OUT, B_OUT, P, G, num_pairs, N, zi, zn, oi, on, pk,
    FLAT: tl.constexpr,
    C: tl.constexpr, BC: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, BM: tl.constexpr,
    STEP: tl.constexpr,
) -> None:  # fmt: skip
    c = tl.arange(0, BC)
    k = tl.arange(0, BK)
    inside = (k < K)[:, None]
    outs = ()
    gates = ()
    for step in tl.static_range(0, C, STEP):
        channel = step + tl.arange(0, STEP)
        outs = outs + (weight_tile(P, channel, k, C, K),)
        gates = gates + (weight_tile(G, channel, c, C, C),)
    for tile in tl.range(
        tl.program_id(0), tl.cdiv(num_pairs, BM), tl.num_programs(0), num_stages=1
    ):
        first = tile * BM
        pair = first + tl.arange(0, BM)
        real = pair < num_pairs
        place = pair_offsets(first, pair, N, zi, zn, FLAT)
        out_place = pair_offsets(first, pair, N, oi, on, FLAT)
        y_place = k.to(tl.int64)[:, None] * pk + pair[None, :]
        y = tl.load(PRODUCT + y_place, mask=inside & real[None, :], other=0.0).to(tl.float32)
        x = normed_pairs(Z, W, B, place, real, C, BC).to(G.dtype.element_ty)
        y = normed(
            y,
            inside,
            vector(W_OUT, k, K)[:, None],
            vector(B_OUT, k, K)[:, None],
            K,
            0,
        )
        y = tl.trans(y.to(P.dtype.element_ty))
        for step in tl.static_range(0, C, STEP):
            update = tl.dot(y, tl.trans(outs[step // STEP])) * sigmoid(
                tl.dot(x, tl.trans(gates[step // STEP]))
            )
            add_to_pairs(Z, OUT, place, out_place, step + tl.arange(0, STEP), real, update, C)


def add_gated_output(
    z: Float[Tensor, "I N C"],
    product: Float[Tensor, "K I N"],
    weights: GatedOutputWeights,
    out: Float[Tensor, "I N C"],
) -> None:
    """Write z + p_out(LayerNorm_out(product)) sigmoid(g_out LayerNorm(z)) to `out`, which may be
    z.
    """
    check_product(product, z)
    w = weights
    num_pairs = z.shape[:-1].numel()
    N = z.shape[1]
    channels, depth = w.p_out.shape
    _add_gated_output[(persistent_programs(num_pairs, z.device),)](
        z, product, out, w.norm_weight, w.norm_bias, w.norm_out_weight, w.norm_out_bias,
        w.p_out.contiguous(), w.g_out.contiguous(),
        num_pairs, N, *pair_strides(z, N), *pair_strides(out, N), product.stride(0),
        FLAT=rows_are_adjacent(N, z, out),
        C=channels, BC=next_power_of_2(channels), K=depth, BK=next_power_of_2(depth),
        BM=HOPPER_PAIRS, STEP=HOPPER_STEP, num_warps=HOPPER_WARPS,
    )  # fmt: skip


class AddGatedOutputHopper(AddGatedOutputTriton):
    """The gated output in the kernel for Hopper."""

    def __call__(
        self,
        z: Float[Tensor, "I N C"],
        product: Float[Tensor, "K I N"],
        weights: GatedOutputWeights,
    ) -> Float[Tensor, "I N C"]:
        return residual_with_reference_backward(
            add_gated_output, AddGatedOutput(), z, product, weights
        )
