"""The transition on Hopper: the matrix unit makes the next hidden channels while the present ones
are gated.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

from typing import no_type_check

import torch
from jaxtyping import Float
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_init,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from foldcp.kernels.autograd import residual_with_reference_backward
from foldcp.kernels.layer_norm import EPSILON
from foldcp.kernels.pair_tiles import pair_strides
from foldcp.kernels.transition.reference import AddTransition, TransitionWeights
from foldcp.kernels.transition.triton import AddTransitionTriton
from foldcp.kernels.triton_utils import cdiv

WIDTH = gl.constexpr(128)  # channels of z
STEP = gl.constexpr(64)  # hidden channels at a time
LOG2E = gl.constexpr(1.4426950408889634)
EPS = gl.constexpr(EPSILON)
# of a program; two programs share a multiprocessor
PAIRS = 64
WARPS = 4

INTO = gl.NVMMASharedLayout.get_default_for([64, 128], gl.bfloat16)
BACK = gl.NVMMASharedLayout.get_default_for([128, 64], gl.bfloat16)


@gluon.jit
@no_type_check
def _fetch_into(w1d, w2d, w1, w2, ready, tile, there) -> None:
    """Start the copy of the weights into a tile of hidden channels: those of the values and
    those of the gates.
    """
    bar = ready.index(tile % 2)
    mbarrier.expect(bar, 2 * STEP * WIDTH * 2, pred=there)
    tma.async_copy_global_to_shared(w1d, [tile * STEP, 0], bar, w1.index(tile % 2), pred=there)
    tma.async_copy_global_to_shared(w2d, [tile * STEP, 0], bar, w2.index(tile % 2), pred=there)


@gluon.jit
@no_type_check
def _fetch_back(w3d, w3, ready, tile) -> None:
    bar = ready.index(2 + tile % 2)
    mbarrier.expect(bar, STEP * WIDTH * 2)
    tma.async_copy_global_to_shared(w3d, [0, tile * STEP], bar, w3.index(tile % 2))


@gluon.jit
@no_type_check
def _gated(a, b) -> gl.tensor:
    """silu(a) b."""
    sigmoid = gl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;",
        "=f,f",
        [1.0 + gl.exp2(-LOG2E * a)],
        dtype=gl.float32,
        is_pure=True,
        pack=1,
    )
    return a * sigmoid * b


@gluon.jit
@no_type_check
def _places(X, first, N, stride_i, stride_n, PAIRS: gl.constexpr, ROWS: gl.constexpr) -> gl.tensor:
    pair = first + gl.arange(0, PAIRS, gl.SliceLayout(1, ROWS))
    place = (pair // N).to(gl.int64) * stride_i + (pair % N).to(gl.int64) * stride_n
    return (
        X
        + gl.expand_dims(place, 1)
        + gl.expand_dims(gl.arange(0, WIDTH, gl.SliceLayout(0, ROWS)), 0)
    )


@gluon.jit
@no_type_check
def _normed(x, W, B, ROWS: gl.constexpr) -> gl.tensor:
    c = gl.arange(0, WIDTH, gl.SliceLayout(0, ROWS))
    x -= gl.expand_dims(gl.sum(x, 1) / WIDTH, 1)
    x *= gl.expand_dims(gl.rsqrt(gl.sum(x * x, 1) / WIDTH + EPS), 1)
    return x * gl.expand_dims(gl.load(W + c).to(gl.float32), 0) + gl.expand_dims(
        gl.load(B + c).to(gl.float32), 0
    )


@gluon.jit(do_not_specialize=["N"])
@no_type_check
def _add_transition(
    w1d, w2d, w3d, Z, OUT, W, B, num_pairs, N, num_tiles, zi, zn, oi, on,
    PAIRS: gl.constexpr, VECTOR: gl.constexpr, num_warps: gl.constexpr,
) -> None:  # fmt: skip
    """In flight at a time: the hidden channels of the next tile, and what the tile before gives to
    the update. Hidden channels may only turn into an operand (`p`) while nothing is in flight, as
    in triangle attention.
    """
    ROWS: gl.constexpr = gl.BlockedLayout(
        [1, VECTOR], [32 * VECTOR // WIDTH, WIDTH // VECTOR], [num_warps, 1], [1, 0]
    )
    UPDATE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, 128, 16])
    HIDDEN: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, 64, 16])
    w1 = gl.allocate_shared_memory(gl.bfloat16, [2, STEP, WIDTH], w1d.layout)
    w2 = gl.allocate_shared_memory(gl.bfloat16, [2, STEP, WIDTH], w2d.layout)
    w3 = gl.allocate_shared_memory(gl.bfloat16, [2, WIDTH, STEP], w3d.layout)
    ready = gl.allocate_shared_memory(gl.int64, [4, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(4):
        mbarrier.init(ready.index(i), count=1)
    fence_async_shared()
    _fetch_into(w1d, w2d, w1, w2, ready, 0, True)
    _fetch_back(w3d, w3, ready, 0)
    _fetch_into(w1d, w2d, w1, w2, ready, 1, num_tiles > 1)

    first = gl.program_id(0) * PAIRS
    real = gl.expand_dims(first + gl.arange(0, PAIRS, gl.SliceLayout(1, ROWS)) < num_pairs, 1)
    x = gl.load(_places(Z, first, N, zi, zn, PAIRS, ROWS), mask=real, other=0.0).to(gl.float32)
    x = gl.allocate_shared_memory(
        gl.bfloat16, [PAIRS, WIDTH], w1d.layout, _normed(x, W, B, ROWS).to(gl.bfloat16)
    )
    fence_async_shared()
    gl.thread_barrier()
    zero = gl.zeros([PAIRS, STEP], gl.float32, HIDDEN)
    update = warpgroup_mma_init(gl.zeros([PAIRS, WIDTH], gl.float32, UPDATE))
    mbarrier.wait(ready.index(0), 0)
    next_a = warpgroup_mma(x, w1.index(0).permute((1, 0)), zero, use_acc=False, is_async=True)
    next_b = warpgroup_mma(x, w2.index(0).permute((1, 0)), zero, use_acc=False, is_async=True)
    a, b = warpgroup_mma_wait(0, deps=(next_a, next_b))
    gl.thread_barrier()
    _fetch_into(w1d, w2d, w1, w2, ready, 2, num_tiles > 2)
    for i in range(num_tiles - 1):
        mbarrier.wait(ready.index((i + 1) % 2), ((i + 1) // 2) & 1)
        next_a = warpgroup_mma(
            x, w1.index((i + 1) % 2).permute((1, 0)), zero, use_acc=False, is_async=True
        )
        next_b = warpgroup_mma(
            x, w2.index((i + 1) % 2).permute((1, 0)), zero, use_acc=False, is_async=True
        )
        e = _gated(a, b)
        mbarrier.wait(
            ready.index(2 + i % 2), (i // 2) & 1
        )  # a branch keeps the gates before the wait below
        update, a, b, e = warpgroup_mma_wait(0, deps=(update, next_a, next_b, e))
        gl.thread_barrier()  # all warps are done with the tiles whose places are taken now
        _fetch_into(w1d, w2d, w1, w2, ready, i + 3, i + 3 < num_tiles)
        _fetch_back(w3d, w3, ready, i + 1)
        p = gl.convert_layout(e.to(gl.bfloat16), gl.DotOperandLayout(0, UPDATE, 2))
        update = warpgroup_mma(p, w3.index(i % 2).permute((1, 0)), update, is_async=True)
    last = num_tiles - 1
    e = _gated(a, b)
    mbarrier.wait(ready.index(2 + last % 2), (last // 2) & 1)
    update, e = warpgroup_mma_wait(0, deps=(update, e))
    p = gl.convert_layout(e.to(gl.bfloat16), gl.DotOperandLayout(0, UPDATE, 2))
    update = warpgroup_mma(p, w3.index(last % 2).permute((1, 0)), update, is_async=True)
    z = gl.load(_places(Z, first, N, zi, zn, PAIRS, ROWS), mask=real, other=0.0).to(gl.float32)
    update, p = warpgroup_mma_wait(0, deps=(update, p))
    z += gl.convert_layout(update, ROWS)
    gl.store(
        _places(OUT, first, N, oi, on, PAIRS, ROWS),
        z.to(OUT.dtype.element_ty),
        mask=real,
    )


def can_fuse(channels: int, hidden: int) -> bool:
    """Whether the kernel is made for these sizes."""
    return channels == WIDTH.value and hidden % STEP.value == 0


def add_transition(
    z: Float[Tensor, "*B C"], weights: TransitionWeights, out: Float[Tensor, "*B C"]
) -> None:
    """Write z + transition(z) to `out`, which may be z."""
    w = weights
    num_pairs = z.shape[:-1].numel()
    N = z.shape[-2]
    fc1, fc2 = (
        TensorDescriptor.from_tensor(x.contiguous(), [64, 128], INTO) for x in (w.fc1, w.fc2)
    )
    fc3 = TensorDescriptor.from_tensor(w.fc3.contiguous(), [128, 64], BACK)
    _add_transition[(cdiv(num_pairs, PAIRS),)](
        fc1, fc2, fc3, z, out, w.norm_weight, w.norm_bias, num_pairs, N, len(w.fc1) // STEP.value,
        *pair_strides(z, N), *pair_strides(out, N),
        PAIRS=PAIRS, VECTOR=8 if z.dtype == torch.bfloat16 else 4, num_warps=WARPS,
    )  # fmt: skip


class AddTransitionHopper(AddTransitionTriton):
    """The transition in the kernel for Hopper."""

    def __call__(
        self, z: Float[Tensor, "*B C"], weights: TransitionWeights
    ) -> Float[Tensor, "*B C"]:
        return residual_with_reference_backward(add_transition, AddTransition(), z, weights)
