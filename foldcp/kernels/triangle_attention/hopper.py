"""Attention of many rows under one bias on Hopper, in CUDA C++ (`hopper.cu`)."""

from __future__ import annotations

import ctypes
import warnings
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.kernels.bias_layout import LOG2E, PreparedBias
from foldcp.kernels.cuda_source import CudaKernel, TensorMap, tensor_map
from foldcp.kernels.triton_utils import cdiv

WIDTH = 32  # of a head
THREADS = 5 * 128
SHARED_BYTES = 180_816
ROWS = 4  # of a block
TILE = 64
QUERIES = 128  # of a block
GROUP = 2  # blocks of neighbouring rows that run side by side, to meet in the second-level cache


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
def load() -> CudaKernel | None:
    """The kernel, or None, with a warning, where its compiler is missing."""
    try:
        return CudaKernel(
            Path(__file__).with_suffix(".cu"),
            "attend",
            threads=THREADS,
            shared_bytes=SHARED_BYTES,
        )
    except OSError as missing:
        warnings.warn(
            f"triangle attention runs at two thirds of its speed without NVRTC: {missing}",
            stacklevel=2,
        )
        return None


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
    maps = [
        _map_of(q, (ROWS, QUERIES, WIDTH)),
        _map_of(k, (ROWS, TILE, WIDTH)),
        _map_of(v, (ROWS, TILE, WIDTH)),
    ]
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
    works = num_heads * cdiv(num_rows, ROWS) * cdiv(num_queries, QUERIES)
    kernel.launch(q.device, min(works, _processors(q.device)), [*maps, arguments])
    return redo


@cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def _map_of(x: Float[Tensor, "R N H D"], box: tuple[int, int, int]) -> TensorMap:
    """Of x with its heads side by side."""
    R, N, H, D = x.shape
    row, token, _, _ = x.stride()
    return tensor_map(x.data_ptr(), (R, N, H * D), (row, token), box)


def readable(x: Float[Tensor, "R N H D"]) -> Float[Tensor, "R N H D"]:
    """x as the copy engine reads it: heads side by side, steps of 16 bytes between rows and
    tokens.
    """
    row, token, head, channel = x.stride()
    if (head, channel) == (x.shape[-1], 1) and row % 8 == token % 8 == x.data_ptr() % 16 == 0:
        return x
    return x.contiguous()
