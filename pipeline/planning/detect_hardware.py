"""The hardware of this machine: its GPU's name and memory, matched with a hardware file.

To add a type of GPU: run `foldcp bench` on it, put the file that it writes into
`configs/hardware/`, and add the name to `KNOWN_GPUS`.
"""

from __future__ import annotations

import ctypes
import os
import runpy
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.scheduling.hardware import Hardware, load_hardware

GPU_MEMORY_SHARE = 0.97  # the rest the driver keeps
HOST_MEMORY_SHARE = 0.8  # for all CPU ranks together
MAX_CPU_RANKS = 4  # unless the settings say more


@dataclass(frozen=True, slots=True)
class KnownGpu:
    """A type of GPU: part of its name as CUDA gives it, the least memory, the hardware file."""

    name_part: str
    min_memory_gb: float
    hardware: str


# The first that fits is taken.
KNOWN_GPUS = (
    KnownGpu("H200", 100, "h200"),
    KnownGpu("H100", 60, "h100-80"),
    KnownGpu("A100", 60, "a100-80"),
    KnownGpu("A100", 0, "a100-40"),
    KnownGpu("4090", 0, "rtx4090-24"),
)
FALLBACK = "a100-40"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as CUDA describes it."""

    name: str
    memory: int  # B


def first_gpu() -> Gpu | None:
    """The first GPU that PyTorch would use; None without one, or if PyTorch is built without CUDA.

    CUDA's driver is asked itself, as importing PyTorch takes seconds.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device = ctypes.c_int()
    if not _torch_has_cuda() or cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None
    name = ctypes.create_string_buffer(256)
    memory = ctypes.c_size_t()
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return Gpu(name.value.decode(), memory.value)


def _torch_has_cuda() -> bool:
    """Whether PyTorch is built with CUDA, by its file that says so."""
    torch = find_spec("torch")
    assert torch is not None and torch.origin is not None
    version = runpy.run_path(str(Path(torch.origin).with_name("version.py")))
    return version["cuda"] is not None


def gpu_hardware(gpu: Gpu) -> Hardware:
    """The hardware file of a GPU, with its memory.

    An unknown GPU is assumed to be an A100 with its own memory.
    """
    memory_gb = gpu.memory / 1e9
    usable_gb = GPU_MEMORY_SHARE * memory_gb
    for known in KNOWN_GPUS:
        if known.name_part in gpu.name and memory_gb >= known.min_memory_gb:
            hardware = load_hardware(known.hardware)
            return replace(hardware, memory_gb=min(hardware.memory_gb, usable_gb))
    return replace(load_hardware(FALLBACK), name=gpu.name, memory_gb=usable_gb)


def detect_cpu(num_ranks: int) -> Hardware:
    """The CPU's hardware file, with this machine's memory shared by `num_ranks` ranks."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory_gb = HOST_MEMORY_SHARE * memory / num_ranks / 1e9
    return replace(load_hardware("cpu"), gpus_per_node=num_ranks, memory_gb=memory_gb)


def cpu_ranks(config: RunConfig) -> int:
    """Ranks of a machine without GPUs."""
    return config.run.cpu_ranks or min(MAX_CPU_RANKS, os.cpu_count() or 1)


def choose_hardware(config: RunConfig, name: str, address: str) -> Hardware:
    """The hardware to schedule for: the file or preset called `name`, or else this machine's.

    Raises ValueError when this machine has no GPU from which to tell those of the Ray cluster at
    `address`.
    """
    if name:
        return load_hardware(name)
    if gpu := first_gpu():
        return gpu_hardware(gpu)
    if address:
        raise ValueError(
            "--hardware is missing: this machine has no GPU to tell what those of the cluster are"
        )
    return detect_cpu(cpu_ranks(config))
