"""Passes over pairs on Hopper, in CUDA C++ (`hopper.cu`)."""

from __future__ import annotations

import ctypes
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from enum import IntEnum
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.cuda_source import CudaKernel, compiler, num_multiprocessors
from foldcp.kernels.projection.reference import AttentionOutputWeights, ProjectionWeights
from foldcp.kernels.transition.reference import TransitionWeights
from foldcp.kernels.triangle_multiplication.reference import (
    GatedOutputWeights,
    GatedProjectionWeights,
)
from foldcp.kernels.triton_utils import cdiv, pair_strides

WIDTH = 128  # channels of a pair
PAIRS = 64  # of a warpgroup
MAX_PROJECTED = 384  # channels that a projection may have, as its weights stay on chip
MAX_GATED = 256
FEW = 8  # channels at most that a projection may have to give them first
MAX_PAIRS = (1 << 31) - (1 << 20)
STAGE_BYTES = 3 * 64 * WIDTH * 2  # weights of 64 hidden channels of the transition
STAGES = 3
COMPILERS = 4  # kernels that are compiled at a time


class Pass(IntEnum):
    """What a kernel does, as `hopper.cu` numbers it."""

    PROJECT = 1
    GATED_PROJECTION = 2
    ATTENTION_OUTPUT = 3
    GATED_OUTPUT = 4
    TRANSITION = 5
    LAY_OUT = 6
    PROJECT_FEW = 7


WARPGROUPS = {  # by the bytes of a number of z: as many as registers and shared memory hold
    Pass.PROJECT: {2: 4, 4: 3},
    Pass.GATED_PROJECTION: {2: 3, 4: 2},
    Pass.ATTENTION_OUTPUT: {2: 3, 4: 3},
    Pass.GATED_OUTPUT: {2: 3, 4: 3},
    Pass.TRANSITION: {2: 4, 4: 4},  # one of which brings weights
    Pass.LAY_OUT: {2: 2, 4: 2},
    Pass.PROJECT_FEW: {2: 4, 4: 4},
}
Z_SLOTS = {2: 2, 4: 1}  # tiles of z on chip, where z is needed to the end


class Arguments(ctypes.Structure):
    """As in `hopper.cu`."""

    _fields_ = (
        ("z", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("other", ctypes.c_void_p),
        ("mask", ctypes.c_void_p),
        ("norm_weight", ctypes.c_void_p),
        ("norm_bias", ctypes.c_void_p),
        ("norm_out_weight", ctypes.c_void_p),
        ("norm_out_bias", ctypes.c_void_p),
        ("first", ctypes.c_void_p),
        ("second", ctypes.c_void_p),
        ("z_row", ctypes.c_longlong),
        ("z_column", ctypes.c_longlong),
        ("out_row", ctypes.c_longlong),
        ("out_column", ctypes.c_longlong),
        ("other_row", ctypes.c_longlong),
        ("other_column", ctypes.c_longlong),
        ("num_pairs", ctypes.c_int),
        ("N", ctypes.c_int),
        ("num_out", ctypes.c_int),
        ("mask_by_row", ctypes.c_int),
    )


@cache
def available() -> bool:
    """Whether the kernels can be compiled; warns, once, where their compiler is missing."""
    try:
        compiler()
    except OSError as missing:
        warnings.warn(
            f"passes over pairs run at two thirds of their speed without NVRTC: {missing}",
            stacklevel=2,
        )
        return False
    return True


@cache
def kernels(z_bytes: int) -> dict[Pass, Future[CudaKernel]]:
    """The kernels of all passes over z whose numbers have so many bytes, compiled side by side: the
    first time on a machine each takes a second.
    """
    compilers = ThreadPoolExecutor(COMPILERS)
    return {of: compilers.submit(_compile, of, z_bytes) for of in Pass}


def _compile(of: Pass, z_bytes: int) -> CudaKernel:
    threads = 128 * WARPGROUPS[of][z_bytes]
    return CudaKernel(
        Path(__file__).with_suffix(".cu"),
        "pass_over_pairs",
        threads,
        shared_bytes(of, z_bytes),
        f"-DPASS={of.value}",
        f"-DZ_BYTES={z_bytes}",
        f"-DTHREADS={threads}",
        f"-DZ_SLOTS={Z_SLOTS[z_bytes]}",
    )


def shared_bytes(of: Pass, z_bytes: int) -> int:
    """Bytes on chip of a block: weights, norms and the tiles of its warpgroups."""
    warpgroups = WARPGROUPS[of][z_bytes]
    row = 2 * WIDTH
    tile = PAIRS * row
    z_tile = PAIRS * WIDTH * z_bytes
    norm = 8 * WIDTH
    if of is Pass.PROJECT:
        return MAX_PROJECTED * row + norm + warpgroups * z_tile
    if of is Pass.PROJECT_FEW:
        return FEW * row + norm + warpgroups * z_tile
    if of is Pass.GATED_PROJECTION:
        return 2 * MAX_GATED * row + norm + warpgroups * (tile + z_tile)
    if of is Pass.TRANSITION:
        return STAGES * (STAGE_BYTES + 16) + norm + (warpgroups - 1) * tile
    if of is Pass.LAY_OUT:
        return 0
    return 2 * WIDTH * row + 2 * norm + warpgroups * (Z_SLOTS[z_bytes] * z_tile + tile)


def can_read(z: Float[Tensor, "*B C"], *others: Tensor) -> bool:
    """Whether the kernels read these arrays as they lie: steps of 16 bytes, channels side by
    side.
    """
    if z.dtype not in (torch.bfloat16, torch.float32) or z.shape[:-1].numel() > MAX_PAIRS:
        return False
    return all(
        x.stride(-1) == 1
        and x.data_ptr() % 16 == 0
        and all(step * x.element_size() % 16 == 0 for step in x.stride()[:-1])
        for x in (z, *others)
    )


def project(
    z: Float[Tensor, "*B C"], weights: ProjectionWeights, out: Float[Tensor, "*B K"]
) -> None:
    """Write weight LayerNorm(z) to `out`, in fp16."""
    N = z.shape[-2]
    weight = weights.weight.contiguous()
    arguments = _arguments(z, out, weights, weight)
    arguments.out_row, arguments.out_column = pair_strides(out, N)
    _launch(Pass.PROJECT, z, arguments)


def project_few(z: Float[Tensor, "*B C"], weights: ProjectionWeights) -> Float[Tensor, "K *B"]:
    """weight LayerNorm(z) with its few channels first."""
    weight = weights.weight.contiguous()
    out = torch.empty((len(weight), *z.shape[:-1]), dtype=torch.bfloat16, device=z.device)
    arguments = _arguments(z, out, weights, weight)
    arguments.out_row = out.stride(0)
    _launch(Pass.PROJECT_FEW, z, arguments)
    return out


def gated_projection(
    z: Float[Tensor, "I N C"],
    mask: Float[Tensor, " N"] | Float[Tensor, "I 1"],
    weights: GatedProjectionWeights,
) -> Float[Tensor, "K I N"]:
    """(p_in x) sigmoid(g_in x) mask with x = LayerNorm(z), channels first."""
    p_in = weights.p_in.contiguous()
    g_in = weights.g_in.contiguous()
    out = torch.empty((len(p_in), *z.shape[:-1]), dtype=torch.bfloat16, device=z.device)
    mask = mask.float()
    arguments = _arguments(z, out, weights, p_in)
    arguments.second = g_in.data_ptr()
    arguments.mask = mask.data_ptr()
    arguments.mask_by_row = mask.dim() == 2
    arguments.out_row = out.stride(0)
    _launch(Pass.GATED_PROJECTION, z, arguments)
    return out


def add_attention_output(
    z: Float[Tensor, "*B C"],
    attended: Float[Tensor, "*B K"],
    weights: AttentionOutputWeights,
    out: Float[Tensor, "*B C"],
) -> None:
    """Write z + out_weight (attended * sigmoid(gate LayerNorm(z))) to `out`, which may be z."""
    N = z.shape[-2]
    weight = weights.out.contiguous()
    gate = weights.gate.contiguous()
    arguments = _arguments(z, out, weights, weight)
    arguments.second = gate.data_ptr()
    arguments.other = attended.data_ptr()
    arguments.other_row, arguments.other_column = pair_strides(attended, N)
    arguments.out_row, arguments.out_column = pair_strides(out, N)
    _launch(Pass.ATTENTION_OUTPUT, z, arguments)


def add_gated_output(
    z: Float[Tensor, "I N C"],
    product: Float[Tensor, "K I N"],
    weights: GatedOutputWeights,
    out: Float[Tensor, "I N C"],
) -> None:
    """Write z + p_out(LayerNorm_out(product)) sigmoid(g_out LayerNorm(z)) to `out`, which may be
    z.
    """
    w = weights
    p_out = w.p_out.contiguous()
    g_out = w.g_out.contiguous()
    arguments = _arguments(z, out, weights, p_out)
    arguments.second = g_out.data_ptr()
    arguments.norm_out_weight = w.norm_out_weight.data_ptr()
    arguments.norm_out_bias = w.norm_out_bias.data_ptr()
    arguments.other = product.data_ptr()
    arguments.other_row = product.stride(0)
    arguments.out_row, arguments.out_column = pair_strides(out, z.shape[1])
    _launch(Pass.GATED_OUTPUT, z, arguments)


def add_transition(
    z: Float[Tensor, "*B C"], weights: TransitionWeights, out: Float[Tensor, "*B C"]
) -> None:
    """Write z + transition(z) to `out`, which may be z."""
    w = weights
    fc1 = w.fc1.contiguous()
    fc2 = w.fc2.contiguous()
    fc3 = w.fc3.contiguous()
    laid_out = torch.empty(3 * fc1.numel(), dtype=torch.bfloat16, device=z.device)
    arguments = Arguments(
        out=laid_out.data_ptr(),
        other=fc3.data_ptr(),
        first=fc1.data_ptr(),
        second=fc2.data_ptr(),
        num_out=len(fc1),
    )
    kernel = kernels(z.element_size())[Pass.LAY_OUT].result()
    kernel.launch(z.device, cdiv(laid_out.numel(), kernel.threads), [arguments])
    arguments = _arguments(z, out, weights, fc1)
    arguments.other = laid_out.data_ptr()
    arguments.out_row, arguments.out_column = pair_strides(out, z.shape[-2])
    _launch(Pass.TRANSITION, z, arguments)


def _arguments(
    z: Tensor,
    out: Tensor,
    norm: ProjectionWeights
    | GatedProjectionWeights
    | AttentionOutputWeights
    | GatedOutputWeights
    | TransitionWeights,
    first: Tensor,
) -> Arguments:
    """What all passes are told."""
    N = z.shape[-2]
    z_row, z_column = pair_strides(z, N)
    return Arguments(
        z=z.data_ptr(),
        out=out.data_ptr(),
        norm_weight=norm.norm_weight.data_ptr(),
        norm_bias=norm.norm_bias.data_ptr(),
        first=first.data_ptr(),
        z_row=z_row,
        z_column=z_column,
        num_pairs=z.shape[:-1].numel(),
        N=N,
        num_out=len(first),
    )


def _launch(of: Pass, z: Tensor, arguments: Arguments) -> None:
    computing = WARPGROUPS[of][z.element_size()] - (of is Pass.TRANSITION)
    tiles = cdiv(arguments.num_pairs, PAIRS)
    blocks = min(num_multiprocessors(z.device), cdiv(tiles, computing))
    kernel = kernels(z.element_size())[of].result()
    kernel.launch(z.device, blocks, [arguments])
