"""The transition in Triton: a tile of z is read once, kept on chip, and written once."""
# pyright: reportMissingImports=false, reportIndexIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import residual_with_reference_backward
from foldcp.kernels.pair_tiles import (
    add_to_pairs,
    normed_pairs,
    pair_offsets,
    sigmoid,
    weight_tile,
)
from foldcp.kernels.transition.reference import AddTransition, TransitionWeights
from foldcp.kernels.triton_utils import cdiv, next_power_of_2, pair_strides, rows_are_adjacent

PAIRS = 64  # of a program
STEP = 64  # hidden channels at a time
WARPS = 4
STAGES = 2  # of the pipeline


@triton.jit(do_not_specialize=["N"])
@no_type_check
def _add_transition(
    Z, OUT, W, B, W1, W2, W3, num_pairs, N, zi, zn, oi, on,
    FLAT: tl.constexpr,
    C: tl.constexpr, BC: tl.constexpr, E: tl.constexpr, BM: tl.constexpr, STEP: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:  # fmt: skip
    first = tl.program_id(0) * BM
    pair = first + tl.arange(0, BM)
    real = pair < num_pairs
    place = pair_offsets(first, pair, N, zi, zn, FLAT)
    c = tl.arange(0, BC)
    x = normed_pairs(Z, W, B, place, real, C, BC).to(W1.dtype.element_ty)
    update = tl.zeros((BM, BC), tl.float32)
    for start in tl.range(0, E, STEP, num_stages=STAGES):
        e = start + tl.arange(0, STEP)
        value = tl.dot(x, tl.trans(weight_tile(W1, e, c, E, C)))
        hidden = value * sigmoid(value) * tl.dot(x, tl.trans(weight_tile(W2, e, c, E, C)))
        update = tl.dot(
            hidden.to(W3.dtype.element_ty),
            tl.trans(weight_tile(W3, c, e, C, E)),
            update,
        )
    add_to_pairs(Z, OUT, place, pair_offsets(first, pair, N, oi, on, FLAT), c, real, update, C)


def add_transition(
    z: Float[Tensor, "*B C"], weights: TransitionWeights, out: Float[Tensor, "*B C"]
) -> None:
    """Write z + transition(z) to `out`, which may be z."""
    w = weights
    num_pairs = z.shape[:-1].numel()
    N = z.shape[-2]
    hidden, channels = w.fc1.shape
    _add_transition[(cdiv(num_pairs, PAIRS),)](
        z, out, w.norm_weight, w.norm_bias, w.fc1.contiguous(), w.fc2.contiguous(),
        w.fc3.contiguous(),
        num_pairs, N, *pair_strides(z, N), *pair_strides(out, N),
        FLAT=rows_are_adjacent(N, z, out),
        C=channels, BC=next_power_of_2(channels), E=hidden, BM=PAIRS, STEP=STEP, STAGES=STAGES,
        num_warps=WARPS,
    )  # fmt: skip


class AddTransitionTriton(AddTransition):
    """The transition in one kernel, with the gradient of the reference."""

    def __call__(
        self, z: Float[Tensor, "*B C"], weights: TransitionWeights
    ) -> Float[Tensor, "*B C"]:
        return residual_with_reference_backward(add_transition, AddTransition(), z, weights)

    def bytes_per_row(self, N: int, weights: TransitionWeights) -> int:
        """None: the hidden channels stay on chip. Where gradients are wanted, those of the
        reference, which makes them.
        """
        return super().bytes_per_row(N, weights) if torch.is_grad_enabled() else 0
