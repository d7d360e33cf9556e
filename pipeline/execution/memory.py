"""Memory of a worker's process and of its GPU.

Out of memory is caught in `worker.py` and `ray_results.py`; what follows is decided in
`scheduling/retries.py`, and how a fold shrinks in `scheduling/group_size.py`.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import torch

FREE_MEMORY_SECONDS = 60.0  # in which the GPU memory of a killed worker must become free
FREE_MEMORY_SHARE = 0.9  # of a GPU that must be free before the network is loaded


def wait_for_free_memory(device: torch.device) -> None:
    """Wait until the memory of a worker that was killed on this GPU is free again.

    After `FREE_MEMORY_SECONDS`, continue anyway.
    """
    end = time.monotonic() + FREE_MEMORY_SECONDS
    while time.monotonic() < end:
        free, total = torch.cuda.mem_get_info(device)
        if free >= FREE_MEMORY_SHARE * total:
            return
        time.sleep(0.5)


def reset_peak_bytes() -> None:
    """Reset this process's peak memory, where the system can (Linux)."""
    clear_refs = Path("/proc/self/clear_refs")
    if os.access(clear_refs, os.W_OK):
        clear_refs.write_text("5")


def peak_bytes() -> int:
    """This process's peak memory since `reset_peak_bytes`.

    Since the start of the process where that does nothing.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
