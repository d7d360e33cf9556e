"""The hardware of this machine: its GPU's name and memory, matched with a hardware file.

To add a type of GPU: run `foldcp bench` on it, put the file that it writes into
`configs/hardware/`, and add the name to `KNOWN_GPUS`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import torch

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


def detect_gpu() -> Hardware:
    """The hardware file of this machine's GPU, with its memory.

    An unknown GPU is assumed to be an A100 with its own memory.
    """
    name = torch.cuda.get_device_name(0)
    memory_gb = torch.cuda.get_device_properties(0).total_memory / 1e9
    usable_gb = GPU_MEMORY_SHARE * memory_gb
    for known in KNOWN_GPUS:
        if known.name_part in name and memory_gb >= known.min_memory_gb:
            hardware = load_hardware(known.hardware)
            return replace(hardware, memory_gb=min(hardware.memory_gb, usable_gb))
    return replace(load_hardware(FALLBACK), name=name, memory_gb=usable_gb)


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
    if torch.cuda.is_available():
        return detect_gpu()
    if address:
        raise ValueError(
            "--hardware is missing: this machine has no GPU to tell what those of the cluster are"
        )
    return detect_cpu(cpu_ranks(config))
