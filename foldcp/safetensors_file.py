"""Weights in safetensors files, which hold nothing but tensors, with what describes their network in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from foldcp.files import reading

# One key: safetensors writes several in no fixed order, and equal content should have an equal SHA-256.
METADATA_KEY = "foldcp"


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins like this is one: eight bytes of length, then a header in JSON."""
    return head[8:9] == b"{"


def read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What describes the network, and its weights on the CPU, memory-mapped.

    Raises:
        ValueError: naming the file, when it is damaged or not of `foldcp convert`.
    """
    with reading(str(path)):
        try:
            with safe_open(path, "pt", device="cpu") as file:
                metadata = file.metadata() or {}
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path}: not a safetensors file that can be read ({error})") from error
        return _read_metadata(path, metadata), weights


def _read_metadata(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if METADATA_KEY not in metadata:
        raise ValueError(f"{path}: does not say which network its weights are of; `foldcp convert` makes files that do")
    try:
        about = json.loads(metadata[METADATA_KEY])
    except ValueError as error:
        raise ValueError(f"{path}: metadata {METADATA_KEY!r} is not JSON ({error})") from error
    if not isinstance(about, dict):
        raise ValueError(f"{path}: metadata {METADATA_KEY!r} is not a JSON object")
    return about


def write_safetensors(path: Path, about: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """A new file; equal content gives equal bytes. OSError when it cannot be written.

    Args:
        about: what describes the network, as JSON takes it.
        weights: tensors on the CPU; one that has several names is written under each.
    """
    metadata = {METADATA_KEY: json.dumps(about, sort_keys=True)}
    try:
        save_file(_apart(weights), path, metadata)
    except SafetensorError as error:  # of the disk: what it is given is well formed
        raise OSError(str(error)) from error


def _apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors that share no memory, as safetensors wants them."""
    seen: set[int] = set()
    apart = {}
    for name, weight in weights.items():
        weight = weight.contiguous()
        shared = weight.untyped_storage().data_ptr() in seen
        seen.add(weight.untyped_storage().data_ptr())
        apart[name] = weight.clone() if shared else weight
    return apart
