"""Which implementation of the kernels runs on which kind of device?"""

from __future__ import annotations

import importlib
import logging
from typing import Literal

import torch

Implementation = Literal["torch", "triton"]

_log = logging.getLogger(__name__)
_chosen: dict[str, Implementation] = {}


def choose(device_type: str, implementation: Implementation) -> None:
    """Fix the implementation for a device type ("cpu", "cuda"); ValueError if it cannot run there."""
    if implementation == "triton":
        if device_type != "cuda":
            raise ValueError(f"kernels: implementation 'triton' needs a CUDA device, not {device_type!r}")
        _triton_version()
    elif implementation != "torch":
        raise ValueError(f"kernels: implementation {implementation!r} is neither 'torch' nor 'triton'")
    _chosen[device_type] = implementation
    _log.info("kernels on %s: %s", device_type, _named(implementation))


def chosen(device: torch.device) -> Implementation:
    """The implementation for this device: Triton on CUDA, torch elsewhere, unless `choose` said otherwise."""
    if device.type not in _chosen:
        choose(device.type, "triton" if device.type == "cuda" else "torch")
    return _chosen[device.type]


def describe() -> str:
    """The choices made so far, for the record of a run, e.g. "cpu: torch 2.13.0, cuda: triton 3.6.0"."""
    return ", ".join(f"{kind}: {_named(name)}" for kind, name in sorted(_chosen.items()))


def _named(implementation: Implementation) -> str:
    version = torch.__version__ if implementation == "torch" else _triton_version()
    return f"{implementation} {version}"


def _triton_version() -> str:
    try:
        return importlib.import_module("triton").__version__
    except ModuleNotFoundError as missing:
        raise ValueError(
            "kernels: a CUDA device needs the package 'triton' (pip install 'foldcp[cuda]'); "
            "to run the slower torch reference there, choose it: kernels = 'torch'"
        ) from missing
