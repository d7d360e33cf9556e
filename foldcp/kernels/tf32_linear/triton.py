"""Linear layers in Triton: products in TF32, sums in fp32.

cuBLAS, asked for fp32, leaves the tensor cores alone: with 512 tokens these products took five
times as long.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.pair_tiles import sigmoid
from foldcp.kernels.tf32_linear.reference import LinearOps
from foldcp.kernels.triton_utils import cdiv

MAX_WEIGHTS = 4
ROWS = 64  # of a program
COLUMNS = 64  # of a program; half as many where there are few programs
FEW_PROGRAMS = 96  # an H200 has 132 multiprocessors


@triton.jit
@no_type_check
def _tile(X, row, column, stride, num_rows, num_columns) -> tl.tensor:
    place = row[:, None] * stride + column[None, :]
    inside = (row < num_rows)[:, None] & (column < num_columns)[None, :]
    return tl.load(X + place, mask=inside, other=0.0)


@triton.jit
@no_type_check
def _linear(
    X, W0, W1, W2, W3, BIAS, OUT, num_rows, x_i,
    BIASED: tl.constexpr, PARTS: tl.constexpr,
    J: tl.constexpr, K: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    part = tl.program_id(2)
    W = W0
    if part == 1:
        W = W1
    elif part == 2:
        W = W2
    elif part == 3:
        W = W3
    out = tl.zeros((BM, BN), tl.float32)
    for start in tl.range(0, K, BK, num_stages=STAGES):
        k = start + tl.arange(0, BK)
        x = _tile(X, row, k, x_i, num_rows, K).to(tl.float32)
        w = _tile(W, column, k, K, J, K)
        out = tl.dot(x, tl.trans(w), out, input_precision="tf32")
    if BIASED:
        out += tl.load(BIAS + column, mask=(column < J) & (part == 0), other=0.0)[None, :]
    inside = (row < num_rows)[:, None] & (column < J)[None, :]
    place = row[:, None] * (PARTS * J) + part * J + column[None, :]
    tl.store(OUT + place, out.to(OUT.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def _swiglu(
    X, W1, W2, OUT, num_rows, x_i, J: tl.constexpr, K: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    value = tl.zeros((BM, BN), tl.float32)
    factor = tl.zeros((BM, BN), tl.float32)
    for start in tl.range(0, K, BK, num_stages=STAGES):
        k = start + tl.arange(0, BK)
        x = _tile(X, row, k, x_i, num_rows, K)
        w1 = _tile(W1, column, k, K, J, K)
        w2 = _tile(W2, column, k, K, J, K)
        value = tl.dot(x, tl.trans(w1), value, input_precision="tf32")
        factor = tl.dot(x, tl.trans(w2), factor, input_precision="tf32")
    hidden = value * sigmoid(value) * factor
    inside = (row < num_rows)[:, None] & (column < J)[None, :]
    tl.store(OUT + row[:, None] * J + column[None, :], hidden, mask=inside)


class LinearOpsTriton(LinearOps):
    """The operations in one kernel each, with weights in fp32 and without gradients."""

    def linear(
        self,
        x: Float[Tensor, "I K"],
        weights: Sequence[Float[Tensor, "J K"]],
        bias: Float[Tensor, " J"] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Float[Tensor, "I _"]:
        num_rows, K = x.shape
        J = len(weights[0])
        parts = len(weights)
        out = torch.empty((num_rows, parts * J), dtype=dtype or weights[0].dtype, device=x.device)
        columns = COLUMNS
        if cdiv(num_rows, ROWS) * cdiv(J, COLUMNS) * parts < FEW_PROGRAMS:
            columns //= 2
        _linear[(cdiv(num_rows, ROWS), cdiv(J, columns), parts)](
            x, *(weights[min(i, parts - 1)] for i in range(MAX_WEIGHTS)),
            x if bias is None else bias, out,
            num_rows, _row_stride(x),
            BIASED=bias is not None, PARTS=parts, J=J, K=K,
            BM=ROWS, BN=columns, BK=64, STAGES=3,
        )  # fmt: skip
        return out

    def swiglu(
        self,
        x: Float[Tensor, "I K"],
        fc1: Float[Tensor, "E K"],
        fc2: Float[Tensor, "E K"],
    ) -> Float[Tensor, "I E"]:
        num_rows, K = x.shape
        J = len(fc1)
        out = torch.empty((num_rows, J), dtype=x.dtype, device=x.device)
        _swiglu[(cdiv(num_rows, ROWS), cdiv(J, COLUMNS))](
            x, fc1, fc2, out, num_rows, _row_stride(x), J=J, K=K,
            BM=ROWS, BN=COLUMNS, BK=32, STAGES=3,
        )  # fmt: skip
        return out


def _row_stride(x: Float[Tensor, "I K"]) -> int:
    """Elements from row to row; channels are adjacent."""
    assert x.stride(-1) == 1, f"strides {x.stride()}"
    return x.stride(0)
