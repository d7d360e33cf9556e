"""Safetensors files: weights, with a description of their network in the metadata."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from foldcp.checkpoint.architecture import METADATA_KEY, read_metadata
from foldcp.files import reading

LENGTH = struct.Struct("<Q")  # of the header
ALIGNMENT = 64
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}


def read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description of the network, and its weights on the CPU, memory-mapped where the file has
    them in float32.

    Raises:
        ValueError: naming the file, when it is damaged or not written by `foldcp convert`.
    """
    with reading(str(path)):
        try:
            with safe_open(path, "pt", device="cpu") as file:
                metadata = file.metadata() or {}
                weights = {name: _as_fp32(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path}: not a readable safetensors file ({error})") from error
        return read_metadata(path, metadata), weights


def _as_fp32(weight: Tensor) -> Tensor:
    """Weights kept in bfloat16 as float32."""
    return weight.float() if weight.dtype == torch.bfloat16 else weight


def write_safetensors(path: Path, about: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write a new file; equal content gives equal bytes. Raises OSError.

    Weights begin at multiples of 64 bytes, so that `load` need not copy them. The format allows no
    gaps: weights whose size is not such a multiple come last.

    Args:
        about: a description of the network that can be written as JSON.
        weights: float32 or bfloat16, on the CPU; one with several names is written under each.
    """
    names = sorted(weights, key=lambda name: (weights[name].nbytes % ALIGNMENT > 0, name))
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: json.dumps(about, sort_keys=True)}}
    end = 0
    for name in names:
        begin = end
        end = end + weights[name].nbytes
        header[name] = {
            "dtype": DTYPES[weights[name].dtype],
            "shape": list(weights[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-(LENGTH.size + len(text)) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(LENGTH.pack(len(text)) + text)
        for name in names:
            file.write(weights[name].contiguous().flatten().view(torch.uint8).numpy().data)
