"""Triangle multiplication in Triton: a tile of z is read once, kept on chip, and written once."""
# pyright: reportMissingImports=false, reportIndexIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import (
    residual_with_reference_backward,
    with_reference_backward,
)
from foldcp.kernels.pair_tiles import (
    add_to_pairs,
    normed,
    normed_pairs,
    pair_offsets,
    sigmoid,
    vector,
    weight_tile,
)
from foldcp.kernels.projection.reference import ProjectionWeights
from foldcp.kernels.projection.triton import project_channels_first
from foldcp.kernels.triangle_multiplication.reference import (
    AddGatedOutput,
    GatedOutputWeights,
    GatedProjection,
    GatedProjectionWeights,
)
from foldcp.kernels.triton_utils import cdiv, next_power_of_2, pair_strides, rows_are_adjacent

PAIRS = 64  # of a program
STEP = 32  # channels at a time
WARPS = 4
STAGES = 2  # of the pipeline


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _add_gated_output(
    Z, PRODUCT, OUT, W, B, W_OUT, B_OUT, P, G, num_pairs, N, zi, zn, oi, on, pk,
    FLAT: tl.constexpr,
    C: tl.constexpr, BC: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, BM: tl.constexpr,
    STEP: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:  # fmt: skip
    first = tl.program_id(0) * BM
    pair = first + tl.arange(0, BM)
    real = pair < num_pairs
    place = pair_offsets(first, pair, N, zi, zn, FLAT)
    out_place = pair_offsets(first, pair, N, oi, on, FLAT)
    c = tl.arange(0, BC)
    k = tl.arange(0, BK)
    x = normed_pairs(Z, W, B, place, real, C, BC).to(G.dtype.element_ty)
    inside = (k < K)[:, None]
    y_place = k.to(tl.int64)[:, None] * pk + pair[None, :]
    y = tl.load(PRODUCT + y_place, mask=inside & real[None, :], other=0.0).to(tl.float32)
    y = normed(y, inside, vector(W_OUT, k, K)[:, None], vector(B_OUT, k, K)[:, None], K, 0)
    y = tl.trans(y.to(P.dtype.element_ty))
    for start in tl.range(0, C, STEP, num_stages=STAGES):
        channel = start + tl.arange(0, STEP)
        update = tl.dot(y, tl.trans(weight_tile(P, channel, k, C, K)))
        update *= sigmoid(tl.dot(x, tl.trans(weight_tile(G, channel, c, C, C))))
        add_to_pairs(Z, OUT, place, out_place, channel, real, update, C)


def gated_projection(
    z: Float[Tensor, "I N C"],
    mask: Float[Tensor, " N"] | Float[Tensor, "I 1"],
    weights: GatedProjectionWeights,
) -> Float[Tensor, "K I N"]:
    """(p_in x) sigmoid(g_in x) mask with x = LayerNorm(z), channels first."""
    w = weights
    projection = ProjectionWeights(w.norm_weight, w.norm_bias, w.p_in)
    return project_channels_first(z, projection, gate=(w.g_in, mask))


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
    _add_gated_output[(cdiv(num_pairs, PAIRS),)](
        z, product, out, w.norm_weight, w.norm_bias, w.norm_out_weight, w.norm_out_bias,
        w.p_out.contiguous(), w.g_out.contiguous(),
        num_pairs, N, *pair_strides(z, N), *pair_strides(out, N), product.stride(0),
        FLAT=rows_are_adjacent(N, z, out),
        C=channels, BC=next_power_of_2(channels), K=depth, BK=next_power_of_2(depth),
        BM=PAIRS, STEP=STEP, STAGES=STAGES, num_warps=WARPS,
    )  # fmt: skip


def check_product(product: Float[Tensor, "K I N"], z: Float[Tensor, "I N C"]) -> None:
    """The kernels read the rows of the product as one line."""
    assert product.stride()[1:] == (z.shape[1], 1), (
        f"strides {product.stride()}: rows must follow each other"
    )


class GatedProjectionTriton(GatedProjection):
    """The gated projection in one kernel, with the gradient of the reference."""

    def __call__(
        self,
        z: Float[Tensor, "I N C"],
        mask: Float[Tensor, " N"] | Float[Tensor, "I 1"],
        weights: GatedProjectionWeights,
    ) -> Float[Tensor, "K I N"]:
        return with_reference_backward(gated_projection, GatedProjection(), z, mask, weights)

    def bytes_per_row(self, N: int, weights: GatedProjectionWeights) -> int:
        """None: what is normalised stays on chip. Where gradients are wanted, those of the
        reference, which makes them.
        """
        return super().bytes_per_row(N, weights) if torch.is_grad_enabled() else 0


class AddGatedOutputTriton(AddGatedOutput):
    """The gated output in one kernel, with the gradient of the reference."""

    def __call__(
        self,
        z: Float[Tensor, "I N C"],
        product: Float[Tensor, "K I N"],
        weights: GatedOutputWeights,
    ) -> Float[Tensor, "I N C"]:
        return residual_with_reference_backward(
            add_gated_output, AddGatedOutput(), z, product, weights
        )

    def bytes_per_row(self, N: int, weights: GatedOutputWeights) -> int:
        """None: what is normalised stays on chip. Where gradients are wanted, those of the
        reference, which makes them.
        """
        return super().bytes_per_row(N, weights) if torch.is_grad_enabled() else 0
