"""Run a function on P ranks of this machine: gloo on its CPUs, NCCL on its GPUs, which they
share if they are more.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from foldcp.distributed.context_parallel import ContextParallel

GPU = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ],
)
on_devices = pytest.mark.parametrize("device", ["cpu", GPU])  # the CPU and, if any, a GPU


def device_of(cp: ContextParallel, kind: str) -> torch.device:
    """Where a rank computes: "cpu", or a GPU."""
    return _device(cp.rank, kind)


def _device(rank: int, kind: str) -> torch.device:
    return torch.device(kind, rank % torch.cuda.device_count() if kind == "cuda" else None)


def _share_gpus(rank: int) -> None:
    """NCCL refuses two ranks on one GPU of a host: let each be a host of its own and talk
    through sockets.
    """
    os.environ |= {
        "NCCL_HOSTID": f"rank {rank}",
        "NCCL_SOCKET_IFNAME": "lo",
        "NCCL_IB_DISABLE": "1",
    }


def _rank(
    rank: int,
    size: int,
    kind: str,
    folder: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    device = _device(rank, kind)
    if kind == "cuda":
        if size > torch.cuda.device_count():
            _share_gpus(rank)
        torch.cuda.set_device(device)
    cp = ContextParallel.init(rank, size, f"file://{folder}/meeting", device, timeout=120.0)
    torch.save(function(cp, *args), Path(folder) / f"{rank}.pt")
    cp.destroy()


def run(function: Callable[..., Any], size: int, *args: Any, kind: str = "cpu") -> list[Any]:
    """[function(rows, *args) of each rank]; the function stands at the top of a module, a
    failing rank raises.
    """
    with tempfile.TemporaryDirectory() as folder:
        if size == 1:
            return [function(ContextParallel(), *args)]
        method = (
            "fork" if kind == "cpu" else "spawn"
        )  # a process that has used a GPU cannot be forked
        mp.start_processes(
            _rank,
            (size, kind, folder, function, args),
            nprocs=size,
            start_method=method,
        )
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(size)]
