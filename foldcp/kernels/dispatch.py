"""Which implementation of the kernels runs on which kind of device?"""

from __future__ import annotations

import functools
import importlib
import logging
from typing import Literal

import torch

Implementation = Literal["torch", "triton"]

_log = logging.getLogger(__name__)
_chosen: dict[str, Implementation] = {}
# the language of the kernels for one chip changes between releases: those it was tried with
_HOPPER_TRITON = "3.6."


def choose(device_type: str, implementation: Implementation) -> None:
    """Fix the implementation for a device type ("cpu", "cuda"); ValueError if it cannot run
    there.
    """
    if implementation == "triton":
        if device_type != "cuda":
            raise ValueError(
                f"kernels: implementation 'triton' needs a CUDA device, not {device_type!r}"
            )
        _triton_version()
    elif implementation != "torch":
        raise ValueError(
            f"kernels: implementation {implementation!r} is neither 'torch' nor 'triton'"
        )
    _chosen[device_type] = implementation
    _log.info("kernels on %s: %s", device_type, _named(implementation))


def chosen(device: torch.device) -> Implementation:
    """The implementation for this device: Triton on CUDA, torch elsewhere, unless `choose` said
    otherwise.
    """
    if device.type not in _chosen:
        choose(device.type, "triton" if device.type == "cuda" else "torch")
    return _chosen[device.type]


def fused(device: torch.device, arithmetic: torch.dtype) -> bool:
    """Does this arithmetic run in the Triton kernels here? They are for bf16; fp32, for parity,
    stays in torch.
    """
    return chosen(device) == "triton" and arithmetic == torch.bfloat16


def hopper(device: torch.device) -> bool:
    """Are the kernels written for Hopper alone (H100, H200) chosen here, among those in Triton?"""
    return chosen(device) == "triton" and _on_hopper()


def describe() -> str:
    """The choices made so far, for the record of a run: "cpu: torch 2.13.0, cuda: triton 3.6.0
    for Hopper ...".
    """
    return ", ".join(f"{kind}: {_named(name)}" for kind, name in sorted(_chosen.items()))


def _named(implementation: Implementation) -> str:
    if implementation == "torch":
        return f"torch {torch.__version__}"
    chip = " for Hopper" if _on_hopper() else ""
    return f"triton {_triton_version()}{chip} in bf16, torch {torch.__version__} for the rest"


@functools.cache
def _on_hopper() -> bool:
    return torch.cuda.get_device_capability()[0] == 9 and _triton_version().startswith(
        _HOPPER_TRITON
    )


def _triton_version() -> str:
    try:
        return importlib.import_module("triton").__version__
    except ModuleNotFoundError as missing:
        raise ValueError(
            "kernels: a CUDA device needs the package 'triton' (pip install 'foldcp[cuda]'); "
            "to run the slower torch reference there, choose it: kernels = 'torch'"
        ) from missing
