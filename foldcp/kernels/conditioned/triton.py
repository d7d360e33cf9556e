"""The operations of a conditioned transformer in Triton, computed in fp32."""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from functools import partial
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import needs_no_grad, with_reference_backward
from foldcp.kernels.conditioned.reference import (
    AddTransition,
    ConditionedOps,
    Modulation,
    TransitionWeights,
)
from foldcp.kernels.pair_tiles import LOG2E, normed, saturated_fp16, weight_tile
from foldcp.kernels.triton_utils import cdiv, next_power_of_2

PROGRAM_SIZE = 2048  # elements that a program works on
# Of the transition.
ATOMS = 64  # of a program
STEP = 32  # hidden channels at a time
STAGES = 2  # of the pipeline
TRANSITION_WARPS = 4


@triton.jit
@no_type_check
def _sigmoid(x) -> tl.tensor:
    return 1.0 / (1.0 + tl.exp2(-LOG2E * x))


@triton.jit
@no_type_check
def _load(X, row, stride, channel, inside) -> tl.tensor:
    place = row.to(tl.int64)[:, None] * stride + channel[None, :]
    return tl.load(X + place, mask=inside, other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def _modulated(
    x, SCALE, SHIFT, atom, scale_a, shift_a, channel, inside, C: tl.constexpr
) -> tl.tensor:
    scale = _sigmoid(_load(SCALE, atom, scale_a, channel, inside))
    shift = _load(SHIFT, atom, shift_a, channel, inside)
    return normed(x, inside, scale, shift, C, 1)


@triton.jit
@no_type_check
def _gated_sum(A, UPDATE, GATE, row, atom, gate_a, channel, inside, C: tl.constexpr) -> tl.tensor:
    x = _load(A, row, C, channel, inside)
    gate = _sigmoid(_load(GATE, atom, gate_a, channel, inside))
    return x + gate * _load(UPDATE, row, C, channel, inside)


@triton.jit
@no_type_check
def _modulated_norm(
    A, SCALE, SHIFT, OUT, num_rows, num_atoms, scale_a, shift_a,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    channel = tl.arange(0, BC)
    inside = (row < num_rows)[:, None] & (channel < C)[None, :]
    x = _load(A, row, C, channel, inside)
    x = _modulated(x, SCALE, SHIFT, row % num_atoms, scale_a, shift_a, channel, inside, C)
    place = row.to(tl.int64)[:, None] * C + channel[None, :]
    tl.store(OUT + place, x.to(OUT.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def _add_gated(
    A,
    UPDATE,
    GATE,
    OUT,
    num_rows,
    num_atoms,
    gate_a,
    C: tl.constexpr,
    BC: tl.constexpr,
    BM: tl.constexpr,
) -> None:
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    channel = tl.arange(0, BC)
    inside = (row < num_rows)[:, None] & (channel < C)[None, :]
    x = _gated_sum(A, UPDATE, GATE, row, row % num_atoms, gate_a, channel, inside, C)
    place = row.to(tl.int64)[:, None] * C + channel[None, :]
    tl.store(OUT + place, x.to(OUT.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def _add_gated_and_norm(
    A, UPDATE, GATE, SCALE, SHIFT, OUT, NORMED, num_rows, num_atoms, gate_a, scale_a, shift_a,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    atom = row % num_atoms
    channel = tl.arange(0, BC)
    inside = (row < num_rows)[:, None] & (channel < C)[None, :]
    x = _gated_sum(A, UPDATE, GATE, row, atom, gate_a, channel, inside, C)
    x = x.to(OUT.dtype.element_ty)
    place = row.to(tl.int64)[:, None] * C + channel[None, :]
    tl.store(OUT + place, x, mask=inside)
    x = x.to(tl.float32)
    x = _modulated(x, SCALE, SHIFT, atom, scale_a, shift_a, channel, inside, C)
    tl.store(NORMED + place, x.to(NORMED.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def _glu(H, OUT, num_rows, K: tl.constexpr, BK: tl.constexpr, BM: tl.constexpr) -> None:
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    channel = tl.program_id(1) * BK + tl.arange(0, BK)
    inside = (row < num_rows)[:, None] & (channel < K)[None, :]
    x = _load(H, row, 3 * K, channel, inside)
    y = _load(H + K, row, 3 * K, channel, inside)
    w = _load(H + 2 * K, row, 3 * K, channel, inside)
    place = row.to(tl.int64)[:, None] * K + channel[None, :]
    tl.store(OUT + place, (x * y * _sigmoid(y) * w).to(OUT.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def _dot(x, W, rows, cols, num_rows: tl.constexpr, num_cols: tl.constexpr) -> tl.tensor:
    """x W^T for these rows and columns of W."""
    return tl.dot(x, tl.trans(weight_tile(W, rows, cols, num_rows, num_cols)))


@triton.jit
@no_type_check
def _add_transition(
    A, UPDATE, UPDATE_GATE, SCALE, SHIFT, GATE, WIDEN, BACK, OUT, num_rows, num_atoms,
    update_gate_a, scale_a, shift_a, gate_a,
    C: tl.constexpr, BC: tl.constexpr, K: tl.constexpr, BM: tl.constexpr,
    STEP: tl.constexpr, STAGES: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    atom = row % num_atoms
    channel = tl.arange(0, BC)
    inside = (row < num_rows)[:, None] & (channel < C)[None, :]
    x = _gated_sum(A, UPDATE, UPDATE_GATE, row, atom, update_gate_a, channel, inside, C)
    x = saturated_fp16(_modulated(x, SCALE, SHIFT, atom, scale_a, shift_a, channel, inside, C))
    update = tl.zeros((BM, BC), tl.float32)
    for start in tl.range(0, K, STEP, num_stages=STAGES):
        k = start + tl.arange(0, STEP)
        y = _dot(x, WIDEN + K * C, k, channel, K, C)
        y = y * _sigmoid(y)
        y *= _dot(x, WIDEN, k, channel, K, C)
        y *= _dot(x, WIDEN + 2 * K * C, k, channel, K, C)
        update += _dot(saturated_fp16(y), BACK, channel, k, C, K)
    gate = _sigmoid(_load(GATE, atom, gate_a, channel, inside))
    a = _gated_sum(A, UPDATE, UPDATE_GATE, row, atom, update_gate_a, channel, inside, C)
    a += gate * update
    place = row.to(tl.int64)[:, None] * C + channel[None, :]
    tl.store(OUT + place, a.to(OUT.dtype.element_ty), mask=inside)


class ConditionedOpsTriton(ConditionedOps):
    """The operations in one kernel each, with the gradients of the reference."""

    def modulated_norm(
        self,
        a: Float[Tensor, "*M A C"],
        scale: Float[Tensor, "A C"],
        shift: Float[Tensor, "A C"],
        dtype: torch.dtype,
    ) -> Float[Tensor, "*M A C"]:
        kernel = partial(modulated_norm, dtype=dtype)
        reference = partial(super().modulated_norm, dtype=dtype)
        return with_reference_backward(kernel, reference, a, scale, shift)

    def add_gated(
        self,
        a: Float[Tensor, "*M A C"],
        update: Float[Tensor, "*M A C"],
        gate: Float[Tensor, "A C"],
    ) -> Float[Tensor, "*M A C"]:
        return with_reference_backward(add_gated, super().add_gated, a, update, gate)

    def add_gated_and_norm(
        self,
        a: Float[Tensor, "*M A C"],
        update: Float[Tensor, "*M A C"],
        gate: Float[Tensor, "A C"],
        scale: Float[Tensor, "A C"],
        shift: Float[Tensor, "A C"],
        dtype: torch.dtype,
    ) -> tuple[Float[Tensor, "*M A C"], Float[Tensor, "*M A C"]]:
        if needs_no_grad(a, update, gate, scale, shift):
            return add_gated_and_norm(a, update, gate, scale, shift, dtype)
        return super().add_gated_and_norm(a, update, gate, scale, shift, dtype)

    def glu(self, h: Float[Tensor, "*M K"]) -> Float[Tensor, "*M K/3"]:
        return with_reference_backward(glu, super().glu, h)


class AddTransitionTriton(AddTransition):
    """The transition in one kernel, with the gradient of the reference."""

    def __call__(
        self,
        a: Float[Tensor, "*M A C"],
        update: Float[Tensor, "*M A C"],
        update_gate: Float[Tensor, "A C"],
        modulation: Modulation,
        weights: TransitionWeights,
    ) -> Float[Tensor, "*M A C"]:
        arguments = (a, update, update_gate, modulation, weights)
        return with_reference_backward(add_transition, AddTransition(), *arguments)


def _tiles(channels: int) -> tuple[int, int]:
    """Channels padded to a power of two, and rows of a program."""
    block = next_power_of_2(channels)
    return block, max(1, PROGRAM_SIZE // block)


def _row_stride(x: Float[Tensor, "A C"]) -> int:
    """Elements from row to row; channels are adjacent."""
    assert x.stride(-1) == 1, f"strides {x.stride()}"
    return x.stride(0)


def modulated_norm(
    a: Float[Tensor, "*M A C"],
    scale: Float[Tensor, "A C"],
    shift: Float[Tensor, "A C"],
    dtype: torch.dtype,
) -> Float[Tensor, "*M A C"]:
    a = a.contiguous()
    num_rows = a.shape[:-1].numel()
    num_atoms, channels = a.shape[-2:]
    block, tile = _tiles(channels)
    out = torch.empty(a.shape, dtype=dtype, device=a.device)
    _modulated_norm[(cdiv(num_rows, tile),)](
        a, scale, shift, out,
        num_rows, num_atoms, _row_stride(scale), _row_stride(shift),
        C=channels, BC=block, BM=tile,
    )  # fmt: skip
    return out


def add_gated(
    a: Float[Tensor, "*M A C"],
    update: Float[Tensor, "*M A C"],
    gate: Float[Tensor, "A C"],
) -> Float[Tensor, "*M A C"]:
    a = a.contiguous()
    num_rows = a.shape[:-1].numel()
    num_atoms, channels = a.shape[-2:]
    block, tile = _tiles(channels)
    out = torch.empty_like(a)
    _add_gated[(cdiv(num_rows, tile),)](
        a, update.contiguous(), gate, out,
        num_rows, num_atoms, _row_stride(gate),
        C=channels, BC=block, BM=tile,
    )  # fmt: skip
    return out


def add_gated_and_norm(
    a: Float[Tensor, "*M A C"],
    update: Float[Tensor, "*M A C"],
    gate: Float[Tensor, "A C"],
    scale: Float[Tensor, "A C"],
    shift: Float[Tensor, "A C"],
    dtype: torch.dtype,
) -> tuple[Float[Tensor, "*M A C"], Float[Tensor, "*M A C"]]:
    a = a.contiguous()
    num_rows = a.shape[:-1].numel()
    num_atoms, channels = a.shape[-2:]
    block, tile = _tiles(channels)
    out = torch.empty_like(a)
    x = torch.empty(a.shape, dtype=dtype, device=a.device)
    _add_gated_and_norm[(cdiv(num_rows, tile),)](
        a, update.contiguous(), gate, scale, shift, out, x,
        num_rows, num_atoms, _row_stride(gate), _row_stride(scale), _row_stride(shift),
        C=channels, BC=block, BM=tile,
    )  # fmt: skip
    return out, x


def glu(h: Float[Tensor, "*M K"]) -> Float[Tensor, "*M K/3"]:
    h = h.contiguous()
    num_rows = h.shape[:-1].numel()
    hidden = h.shape[-1] // 3
    block = min(512, next_power_of_2(hidden))
    tile = PROGRAM_SIZE // block
    out = h.new_empty((*h.shape[:-1], hidden))
    _glu[(cdiv(num_rows, tile), cdiv(hidden, block))](h, out, num_rows, K=hidden, BK=block, BM=tile)
    return out


def add_transition(
    a: Float[Tensor, "*M A C"],
    update: Float[Tensor, "*M A C"],
    update_gate: Float[Tensor, "A C"],
    modulation: Modulation,
    weights: TransitionWeights,
) -> Float[Tensor, "*M A C"]:
    a = a.contiguous()
    scale = modulation.scale
    shift = modulation.shift
    gate = modulation.gate
    up_proj = weights.up_proj.contiguous()
    down_proj = weights.down_proj.contiguous()
    num_rows = a.shape[:-1].numel()
    num_atoms, channels = a.shape[-2:]
    block = max(16, next_power_of_2(channels))
    out = torch.empty_like(a)
    _add_transition[(cdiv(num_rows, ATOMS),)](
        a, update.contiguous(), update_gate, scale, shift, gate, up_proj, down_proj, out,
        num_rows, num_atoms,
        _row_stride(update_gate), _row_stride(scale), _row_stride(shift), _row_stride(gate),
        C=channels, BC=block, K=down_proj.shape[1],
        BM=ATOMS, STEP=STEP, STAGES=STAGES, num_warps=TRANSITION_WARPS,
    )  # fmt: skip
    return out
