"""Kernels in CUDA C++, compiled by NVRTC, which PyTorch brings, when they are first needed, and
kept on disk.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Shaped
from torch import Tensor

HEADER = Path(__file__).with_name("hopper.cuh")
MAX_DYNAMIC_SHARED_BYTES = 8  # the names of these numbers are those of CUDA's driver
FLOAT16 = 6
SWIZZLES = {32: 1, 64: 2, 128: 3}  # by the bytes of a row on chip
PROMOTE_TO_64_BYTES = 1
TENSOR_MAP_BYTES = 128


class CudaKernel:
    """One kernel of a source file, for Hopper GPUs; `hopper.cuh` comes before it."""

    def __init__(
        self, source: Path, name: str, threads: int, shared_bytes: int, *options: str
    ) -> None:
        """Compiles. Raises OSError where NVRTC is missing, RuntimeError where it fails."""
        self.name = name
        self.threads = threads
        self.shared_bytes = shared_bytes
        text = HEADER.read_text() + source.read_text()
        self.cubin = compiled(text, f"-DSHARED_BYTES={shared_bytes}", *options)
        self.functions: dict[int, ctypes.c_void_p] = {}

    def launch(
        self,
        device: torch.device,
        blocks: int,
        arguments: Sequence[ctypes.Structure],
    ) -> None:
        """On a device, in the stream that PyTorch works in there."""
        if device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                return self.launch(device, blocks, arguments)
        if device.index not in self.functions:
            self.functions[device.index] = self._load()
        addresses = [ctypes.addressof(x) for x in arguments]
        error = driver().cuLaunchKernel(
            self.functions[device.index],
            *(blocks, 1, 1),
            *(self.threads, 1, 1),
            self.shared_bytes,
            ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream),
            (ctypes.c_void_p * len(addresses))(*addresses),
            None,
        )
        check(error, f"launching {self.name}")

    def _load(self) -> ctypes.c_void_p:
        module = ctypes.c_void_p()
        check(driver().cuModuleLoadData(ctypes.byref(module), self.cubin), f"loading {self.name}")
        function = ctypes.c_void_p()
        check(
            driver().cuModuleGetFunction(ctypes.byref(function), module, self.name.encode()),
            f"finding {self.name}",
        )
        check(
            driver().cuFuncSetAttribute(function, MAX_DYNAMIC_SHARED_BYTES, self.shared_bytes),
            f"{self.shared_bytes} bytes of shared memory for {self.name}",
        )
        return function


def load_kernel(
    slower: str, source: Path, name: str, threads: int, shared_bytes: int, *options: str
) -> CudaKernel | None:
    """The kernel; None where its compiler is missing, with a warning that begins with `slower`.

    Raises RuntimeError where compiling fails.
    """
    assert source.is_file(), f"{source} is not installed"
    try:
        return CudaKernel(source, name, threads, shared_bytes, *options)
    except OSError as missing:
        warnings.warn(f"{slower} without NVRTC: {missing}", stacklevel=3)
        return None


class TensorMap(ctypes.Structure):
    """What the copy engine is told of an array; lies at an address that is a multiple of 64, as the
    driver asks for.
    """

    _fields_ = (("opaque", ctypes.c_uint64 * (TENSOR_MAP_BYTES // 8)),)


@lru_cache(maxsize=512)  # addresses come back, since PyTorch keeps the memory it was given
def tensor_map(
    address: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    box: tuple[int, ...],
) -> TensorMap:
    """Copies of a box, whose last dimension is 32, 64 or 128 bytes and swizzled, from an array of
    fp16 or bf16 of this shape and strides; zeros beyond it. The last dimension's stride, 1, is not
    given.
    """
    rank = len(shape)
    memory = ctypes.create_string_buffer(TENSOR_MAP_BYTES + 64)
    result = TensorMap.from_buffer(memory, -ctypes.addressof(memory) % 64)
    error = driver().cuTensorMapEncodeTiled(
        ctypes.byref(result),
        FLOAT16,
        rank,
        ctypes.c_void_p(address),
        (ctypes.c_uint64 * rank)(*reversed(shape)),
        (ctypes.c_uint64 * (rank - 1))(*(2 * stride for stride in reversed(strides))),
        (ctypes.c_uint32 * rank)(*reversed(box)),
        (ctypes.c_uint32 * rank)(*(1 for _ in box)),
        0,
        SWIZZLES[2 * box[-1]],
        PROMOTE_TO_64_BYTES,
        0,
    )
    check(error, f"describing an array of shape {shape}, strides {strides}")
    return result


def matrix_map(x: Shaped[Tensor, "R C"], box: tuple[int, int]) -> TensorMap:
    """Copies of a box of so many rows and columns from a matrix of 2-byte numbers, whose rows
    follow each other.
    """
    assert x.is_contiguous(), f"strides {x.stride()}"
    R, C = x.shape
    return tensor_map(x.data_ptr(), shape=(R, C), strides=(C,), box=box)


@cache
def num_multiprocessors(device: torch.device) -> int:
    """How many blocks run at a time, where each needs a multiprocessor of its own."""
    return torch.cuda.get_device_properties(device).multi_processor_count


def compiled(source: str, *options: str) -> bytes:
    """Machine code for Hopper, from the user's cache where it has been compiled before.

    Raises what `compile_source` raises.
    """
    identity = "\n".join((torch.version.cuda or "", *options, source))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "foldcp" / "kernels"
    path = cache / f"{hashlib.sha256(identity.encode()).hexdigest()}.cubin"
    if path.is_file():
        return path.read_bytes()
    cubin = compile_source(source, *options)
    with suppress(OSError):  # a home that cannot be written to: compiled anew each time
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(cubin)
        unfinished.replace(path)
    return cubin


def compile_source(source: str, *options: str) -> bytes:
    """Machine code for Hopper.

    Raises OSError where NVRTC is missing, RuntimeError with its messages where it fails.
    """
    nvrtc = compiler()
    program = ctypes.c_void_p()
    arguments = [b"--gpu-architecture=sm_90a", b"--std=c++17", *(x.encode() for x in options)]
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    failed = nvrtc.nvrtcCompileProgram(
        program, len(arguments), (ctypes.c_char_p * len(arguments))(*arguments)
    )
    kind = "ProgramLog" if failed else "CUBIN"
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
    result = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{kind}")(program, result)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    if failed:
        raise RuntimeError(f"NVRTC: {result.value.decode()}")
    return result.raw


def check(error: int, what: str) -> None:
    """Raises RuntimeError for an error of the driver."""
    if error:
        raise RuntimeError(f"CUDA error {error} while {what}")


@cache
def driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


@cache
def compiler() -> ctypes.CDLL:
    """NVRTC of PyTorch's CUDA release: where the loader finds it, or in NVIDIA's packages.

    Raises OSError where it is in neither.
    """
    name = f"libnvrtc.so.{(torch.version.cuda or '').split('.')[0]}"
    packages = find_spec("nvidia")
    folders = packages.submodule_search_locations if packages else None
    paths = [path for folder in folders or () for path in Path(folder).glob(f"*/lib/{name}")]
    return ctypes.CDLL(str(paths[0]) if paths else name)
