"""Pairs in 8 bits in Triton: one read and one write, without intermediates."""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.quantization import reference
from foldcp.kernels.quantization.reference import Int8Pairs, Quantization
from foldcp.kernels.triton_utils import cdiv

GROUP = tl.constexpr(reference.GROUP)
LARGEST = tl.constexpr(reference.LARGEST)
MIN_SCALE = tl.constexpr(reference.MIN_SCALE)
GROUPS = tl.constexpr(16)  # of a program


@triton.jit(do_not_specialize=["num_groups"])
@no_type_check
def _write(X, VALUES, SCALES, N, num_groups, x_channel, x_row) -> None:
    """A program has 16 groups of a row and channel. `VALUES` and `SCALES` are contiguous."""
    row = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(2).to(tl.int64)
    line = channel * tl.num_programs(0) + row
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    column = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    inside = column < N
    place = channel * x_channel + row * x_row + column
    x = tl.load(X + place, mask=inside, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(x), 1) / LARGEST, MIN_SCALE)
    scale += tl.sum(x * 0.0, 1)  # NaN, where a number is not finite
    scale = scale.to(SCALES.dtype.element_ty)
    value = tl.floor(x / scale.to(tl.float32)[:, None] + 0.5).to(tl.int8)
    tl.store(VALUES + line * N + column, value, mask=inside)
    tl.store(SCALES + line * num_groups + group, scale, mask=group < num_groups)


@triton.jit(do_not_specialize=["num_groups"])
@no_type_check
def _read(VALUES, SCALES, OUT, N, num_groups, value_channel, scale_channel) -> None:
    """A program has 16 groups of a row and channel. `OUT` is contiguous, rows are everywhere."""
    row = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(2).to(tl.int64)
    line = channel * tl.num_programs(0) + row
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    column = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    inside = column < N
    value = tl.load(VALUES + channel * value_channel + row * N + column, mask=inside, other=0)
    scale_place = channel * scale_channel + row * num_groups + group
    scale = tl.load(SCALES + scale_place, mask=group < num_groups, other=0.0).to(tl.float32)
    x = value.to(tl.float32) * scale[:, None]
    tl.store(OUT + line * N + column, x.to(OUT.dtype.element_ty), mask=inside)


class QuantizationTriton(Quantization):
    """One kernel each."""

    def write(self, x: Float[Tensor, "K I N"], out: Int8Pairs) -> None:
        """Quantize x."""
        K, I, N = x.shape
        assert x.stride(2) == 1 and out.values.is_contiguous() and out.scales.is_contiguous()
        num_groups = out.scales.shape[-1]
        grid = (I, cdiv(num_groups, GROUPS.value), K)
        _write[grid](x, out.values, out.scales, N, num_groups, *x.stride()[:2])

    def read(self, pairs: Int8Pairs, dtype: torch.dtype) -> Float[Tensor, "K I N"]:
        """The numbers in `dtype`, contiguous."""
        K, I, N = pairs.values.shape
        num_groups = pairs.scales.shape[-1]
        assert pairs.values.stride()[1:] == (N, 1)
        assert pairs.scales.stride()[1:] == (num_groups, 1)
        out = torch.empty((K, I, N), dtype=dtype, device=pairs.values.device)
        grid = (I, cdiv(num_groups, GROUPS.value), K)
        strides = (pairs.values.stride(0), pairs.scales.stride(0))
        _read[grid](pairs.values, pairs.scales, out, N, num_groups, *strides)
        return out

    def bytes_per_row(self, K: int, N: int, dtype: torch.dtype) -> int:
        """Bytes of what is read of a row of N pairs."""
        return K * N * dtype.itemsize
