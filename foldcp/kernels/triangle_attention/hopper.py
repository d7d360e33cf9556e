"""Attention of many rows under one bias on Hopper, in CUDA C++ (`hopper.cu`)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.kernels.bias_layout import LOG2E, PreparedBias
from foldcp.kernels.cuda_source import (
    CudaKernel,
    TensorMap,
    load_kernel,
    num_multiprocessors,
    tensor_map,
)
from foldcp.kernels.triton_utils import cdiv

WEIGHING_WARPS = 16
THREADS = 32 * WEIGHING_WARPS + 128  # and a warpgroup of which one thread copies
TILE = 64
STAGES = 3  # tiles of keys, values and bias on chip
GROUP = 2  # blocks of neighbouring rows that run side by side, to meet in the second-level cache


@dataclass(frozen=True)
class Tiling:
    """What a block has at a time of attention with heads of this width."""

    width: int
    rows: int
    query_tiles: int

    @property
    def part(self) -> int:
        """Channels that lie side by side on chip."""
        return 32 if self.width == 32 else 16

    @property
    def shared_bytes(self) -> int:
        tile = TILE * self.width * 2
        stage = 2 * self.rows * tile + self.query_tiles * TILE * TILE * 2
        queries = self.query_tiles * (self.rows * tile + TILE * 4)  # and the maxima of their bias
        return STAGES * (stage + 16) + queries + 32 + 8 * WEIGHING_WARPS

    @property
    def options(self) -> list[str]:
        """For the compiler."""
        names = {"WIDTH": self.width, "ROWS": self.rows, "QUERY_TILES": self.query_tiles}
        return [f"-D{name}={value}" for name, value in (names | {"STAGES": STAGES}).items()]


# Rows of pairs are many; samples, of which the other width has heads, few.
TILINGS = {32: Tiling(32, rows=4, query_tiles=2), 48: Tiling(48, rows=2, query_tiles=4)}


class Arguments(ctypes.Structure):
    """As in `hopper.cu`."""

    _fields_ = (
        ("bias", ctypes.c_void_p),
        ("maxima", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("lse", ctypes.c_void_p),
        ("redo", ctypes.c_void_p),
        ("tickets", ctypes.c_void_p),
        ("out_row", ctypes.c_longlong),
        ("out_token", ctypes.c_int),
        ("out_head", ctypes.c_int),
        ("num_rows", ctypes.c_int),
        ("num_queries", ctypes.c_int),
        ("num_heads", ctypes.c_int),
        ("query_tiles", ctypes.c_int),
        ("key_tiles", ctypes.c_int),
        ("maxima_row", ctypes.c_int),
        ("group", ctypes.c_int),
        ("scale", ctypes.c_float),
    )


@cache
def load(width: int) -> CudaKernel | None:
    """The kernel for heads of this width. None where there is none, and, with a warning, where its
    compiler is missing.
    """
    tiling = TILINGS.get(width)
    if tiling is None:
        return None
    return load_kernel(
        "attention runs at two thirds of its speed",
        Path(__file__).with_suffix(".cu"),
        "attend",
        THREADS,
        tiling.shared_bytes,
        *tiling.options,
    )


def forward(
    kernel: CudaKernel,
    q: Float[Tensor, "R I H D"],
    k: Float[Tensor, "R N H D"],
    v: Float[Tensor, "R N H D"],
    bias: PreparedBias,
    out: Float[Tensor, "R I H D"],
    lse: Float[Tensor, "R H I"] | None,
) -> Int[Tensor, "R H A"]:
    """Write `out` and `lse` for q, k and v in fp16; 1 where the scores of a row's tile of queries
    left the range of the kernel, to be done again.
    """
    num_rows, num_queries, num_heads, width = q.shape
    _, query_tiles, key_tiles, _ = bias.tiles.shape
    redo = torch.empty((num_rows, num_heads, query_tiles), dtype=torch.int32, device=q.device)
    tiling = TILINGS[width]
    maps = [_map_of(x, tiling) for x in (q, k, v)]
    arguments = Arguments(
        bias=bias.tiles.data_ptr(),
        maxima=bias.maxima.data_ptr(),
        out=out.data_ptr(),
        lse=None if lse is None else lse.data_ptr(),
        redo=redo.data_ptr(),
        tickets=bias.tickets.data_ptr(),
        out_row=out.stride(0),
        out_token=out.stride(1),
        out_head=out.stride(2),
        num_rows=num_rows,
        num_queries=num_queries,
        num_heads=num_heads,
        query_tiles=query_tiles,
        key_tiles=key_tiles,
        maxima_row=bias.maxima.shape[1],
        group=GROUP,
        scale=LOG2E.value * width**-0.5,
    )
    works = num_works(num_rows, num_queries, num_heads, width)
    kernel.launch(q.device, min(works, num_multiprocessors(q.device)), [*maps, arguments])
    return redo


def num_works(num_rows: int, num_queries: int, num_heads: int, width: int) -> int:
    """How many blocks may work at the same time."""
    tiling = TILINGS[width]
    queries = tiling.query_tiles * TILE
    return num_heads * cdiv(num_rows, tiling.rows) * cdiv(num_queries, queries)


def _map_of(x: Float[Tensor, "R N H D"], tiling: Tiling) -> TensorMap:
    """Of a tile of tokens of some rows of one head of x, whose heads are side by side."""
    R, N, H, D = x.shape
    row, token, _, _ = x.stride()
    part = tiling.part
    return tensor_map(
        x.data_ptr(),
        shape=(R, H * D // part, N, part),
        strides=(row, part, token),
        box=(tiling.rows, D // part, TILE, part),
    )


def readable(x: Float[Tensor, "R N H D"]) -> Float[Tensor, "R N H D"]:
    """x as the copy engine reads it: heads side by side, steps of 16 bytes between rows and
    tokens.
    """
    row, token, head, channel = x.stride()
    if (head, channel) == (x.shape[-1], 1) and row % 8 == token % 8 == x.data_ptr() % 16 == 0:
        return x
    return x.contiguous()
