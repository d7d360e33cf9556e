"""What outer products add to the pair representation, in Triton: one read of the outer products."""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import residual_with_reference_backward
from foldcp.kernels.outer_product.reference import AddOuterProducts, OuterProductWeights
from foldcp.kernels.pair_tiles import vector
from foldcp.kernels.triton_utils import cdiv, next_power_of_2


@dataclass(frozen=True)
class Tile:
    """Size and pipeline depth of the kernel."""

    pairs: int  # of a program
    warps: int
    stages: int  # of the pipeline


TILE = Tile(pairs=128, warps=8, stages=3)


@triton.jit(do_not_specialize=["I", "J"])
@no_type_check
def _add_outer_products(
    Z, OUTER, COUNT, W, B, OUT, I, J, zi, zj, oi, oj,
    D: tl.constexpr, C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, STAGES: tl.constexpr,
) -> None:  # fmt: skip
    """A program has BM pairs of a row; a step of its loop has one channel of the first factor."""
    row = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * BM + tl.arange(0, BM)
    c = tl.arange(0, BC)
    d = tl.arange(0, D)
    real = (j < J)[:, None]
    channels = (c < C)[None, :]
    place = row * J * D + j[:, None] * D + d[None, :]
    step = I.to(tl.int64) * J * D
    update = tl.zeros((BM, BC), tl.float32)
    for first in tl.range(0, D, num_stages=STAGES):
        outer = tl.load(OUTER + first * step + place, mask=real, other=0.0)
        weight = tl.load(W + (first * D + d)[:, None] * C + c[None, :], mask=channels, other=0.0)
        update = tl.dot(outer, weight, update)
    count = tl.load(COUNT + row * J + j, mask=j < J, other=1.0)
    update = update / count[:, None] + vector(B, c, C)[None, :]
    inside = real & channels
    z = tl.load(Z + row * zi + j[:, None] * zj + c[None, :], mask=inside, other=0.0)
    tl.store(
        OUT + row * oi + j[:, None] * oj + c[None, :],
        (z.to(tl.float32) + update).to(OUT.dtype.element_ty),
        mask=inside,
    )


def add_outer_products(
    z: Float[Tensor, "I J C"],
    outer: Float[Tensor, "D I J E"],
    count: Float[Tensor, "I J"],
    weights: OuterProductWeights,
    out: Float[Tensor, "I J C"],
) -> None:
    """Write z + weight outer / count + bias to `out`, which may be z."""
    I, J, C = z.shape
    D = len(outer)
    tile = TILE
    assert z.stride(2) == out.stride(2) == 1, f"strides {z.stride()} and {out.stride()}"
    _add_outer_products[(I, cdiv(J, tile.pairs))](
        z, outer.contiguous(), count.contiguous(), weights.weight.T.contiguous(), weights.bias, out,
        I, J, *z.stride()[:2], *out.stride()[:2],
        D=D, C=C, BC=next_power_of_2(C), BM=tile.pairs, STAGES=tile.stages, num_warps=tile.warps,
    )  # fmt: skip


class AddOuterProductsTriton(AddOuterProducts):
    """The update in one kernel, with the gradient of the reference."""

    def __call__(
        self,
        z: Float[Tensor, "I J C"],
        outer: Float[Tensor, "D I J E"],
        count: Float[Tensor, "I J"],
        weights: OuterProductWeights,
    ) -> Float[Tensor, "I J C"]:
        reference = AddOuterProducts()
        return residual_with_reference_backward(
            add_outer_products, reference, z, outer, count, weights
        )

    def bytes_per_row(self, J: int, weights: OuterProductWeights) -> int:
        """None, but where gradients are wanted those of the reference, which makes them."""
        return super().bytes_per_row(J, weights) if torch.is_grad_enabled() else 0
