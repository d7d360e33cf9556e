"""Hidden channels of a transition on Hopper, in CUDA C++ (`glu_linear.cu`)."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import with_reference_backward
from foldcp.kernels.conditioned.reference import ConditionedOps
from foldcp.kernels.conditioned.triton import ConditionedOpsTriton
from foldcp.kernels.cuda_source import (
    CudaKernel,
    load_kernel,
    matrix_map,
    num_multiprocessors,
)
from foldcp.kernels.triton_utils import cdiv

WARPGROUPS = 3  # one of which copies
ROWS = 256  # of a tile
HIDDEN = 64  # of a tile
STEP = 64  # channels on chip at a time
STAGES = 4
SHARED_BYTES = STAGES * ((ROWS + 3 * HIDDEN) * STEP * 2 + 16)
MIN_USE = 0.7  # of the multiprocessors; below it cuBLAS, which has smaller tiles, is faster


class Arguments(ctypes.Structure):
    """As in `glu_linear.cu`."""

    _fields_ = (
        ("out", ctypes.c_void_p),
        ("num_rows", ctypes.c_int),
        ("num_hidden", ctypes.c_int),
        ("num_channels", ctypes.c_int),
    )


@cache
def load() -> CudaKernel | None:
    """The kernel; None, with a warning, where its compiler is missing."""
    return load_kernel(
        "transitions of tokens are slower",
        Path(__file__).with_suffix(".cu"),
        "glu_linear",
        WARPGROUPS * 128,
        SHARED_BYTES,
        f"-DSTAGES={STAGES}",
    )


class ConditionedOpsHopper(ConditionedOpsTriton):
    """The operations in Triton, and the hidden channels of many rows by the kernel for Hopper."""

    def __init__(self, kernel: CudaKernel) -> None:
        self.kernel = kernel

    def glu_linear(
        self, x: Float[Tensor, "*M C"], up_proj: Float[Tensor, "H C"]
    ) -> Float[Tensor, "*M H/3"]:
        if not can_run(x, up_proj) or not keeps_busy(x, len(up_proj) // 3):
            return super().glu_linear(x, up_proj)
        return with_reference_backward(self._glu_linear, ConditionedOps().glu_linear, x, up_proj)

    def _glu_linear(self, x: Tensor, up_proj: Tensor) -> Tensor:
        num_rows = x.shape[:-1].numel()
        channels = x.shape[-1]
        hidden = len(up_proj) // 3
        x = x.contiguous()
        out = torch.empty((*x.shape[:-1], hidden), dtype=x.dtype, device=x.device)
        maps = [
            matrix_map(x.view(num_rows, channels), (ROWS, STEP)),
            matrix_map(up_proj.contiguous(), (HIDDEN, STEP)),
        ]
        arguments = Arguments(out.data_ptr(), num_rows, hidden, channels)
        blocks = min(num_tiles(num_rows, hidden), num_multiprocessors(x.device))
        self.kernel.launch(x.device, blocks, [*maps, arguments])
        return out


def can_run(x: Float[Tensor, "*M C"], up_proj: Float[Tensor, "H C"]) -> bool:
    """Whether the kernel is made for these types and sizes."""
    if x.dtype != torch.bfloat16 or up_proj.dtype != torch.bfloat16:
        return False
    return x.shape[-1] % STEP == 0 and len(up_proj) % (3 * HIDDEN) == 0


def keeps_busy(x: Float[Tensor, "*M C"], hidden: int) -> bool:
    """Whether few multiprocessors are idle while others have their last tile."""
    tiles = num_tiles(x.shape[:-1].numel(), hidden)
    processors = num_multiprocessors(x.device)
    return tiles >= MIN_USE * processors * cdiv(tiles, processors)


def num_tiles(num_rows: int, hidden: int) -> int:
    """Pieces of work for the multiprocessors."""
    return cdiv(num_rows, ROWS) * (hidden // HIDDEN)
