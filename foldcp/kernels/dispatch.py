"""Kernel dispatch: the choice, made once, of the implementation of each operation.

`choose_backend` decides for a device when a network is loaded. Each operation's package has a
`choose(backend, ...)` that returns one implementation, an object that is called with tensors; the
layer that uses the operation stores it in `use_kernels(backend)`, when its weights have their final
types. `forward` calls what is stored and never chooses again. A layer without a backend
computes with the PyTorch reference (`Backend()`).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import torch

from foldcp.config import KernelSetting

MAX_CHANNELS = 256  # of z: the kernels hold a tile of pairs with all its channels on chip


@dataclass(frozen=True)
class Backend:
    """The implementations that a device may use; the default is PyTorch for everything."""

    triton: str = ""  # version, where Triton kernels run
    hopper: bool = False  # whether the kernels written for Hopper alone (H100, H200) run, too

    def can_fuse(self, dtype: torch.dtype, channels: int = 0) -> bool:
        """Whether a fused kernel computes in this dtype, on arrays of so many channels.

        Kernels are for bf16; fp32, for parity, stays in PyTorch, and so do arrays with more than
        `MAX_CHANNELS` channels, which belong to tokens, not to pairs. The rotation of a
        superposition and exposed surfaces have types of their own whatever the network's, and do
        not ask.
        """
        return bool(self.triton) and dtype == torch.bfloat16 and channels <= MAX_CHANNELS

    def describe(self) -> str:
        """For the record of a run: "triton 3.6.0 for Hopper in bf16, torch 2.11.0 for the rest"."""
        reference = f"torch {torch.__version__}"
        if not self.triton:
            return reference
        chip = " for Hopper" if self.hopper else ""
        return f"triton {self.triton}{chip} in bf16, {reference} for the rest"


def choose_backend(setting: KernelSetting, device: torch.device) -> Backend:
    """The backend for a device: with "auto" Triton on a CUDA device and PyTorch elsewhere.

    Raises ValueError where Triton is asked for but not available.
    """
    if setting == "torch" or (setting == "auto" and device.type != "cuda"):
        return Backend()
    if device.type != "cuda":
        raise ValueError(
            f"model.kernels: 'triton' needs a CUDA device, but the device is {str(device)!r}"
        )
    version = _triton_version()
    major, _ = torch.cuda.get_device_capability(device)
    return Backend(version, hopper=major == 9)


def _triton_version() -> str:
    try:
        return importlib.import_module("triton").__version__
    except ModuleNotFoundError as missing:
        raise ValueError(
            "a CUDA device needs the package 'triton' (pip install 'foldcp[cuda]'); to compute "
            "with the slower PyTorch reference instead, use --set model.kernels=torch"
        ) from missing
