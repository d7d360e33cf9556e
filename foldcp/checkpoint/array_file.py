"""Safetensors files of arrays that are no weights, with a description of them in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from foldcp.files import reading, write_file

METADATA_KEY = "foldcp"


def write_arrays(path: Path, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file as a whole or not at all; equal content gives equal bytes.

    `about` can be written as JSON. Raises ValueError naming the file where that cannot be done.
    """
    text = json.dumps(about, sort_keys=True)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    # Of one name, so that whoever writes the file again overwrites what a kill has left.
    part = path.with_name(f"{path.name}.part")
    write_file(path, save(contiguous, metadata={METADATA_KEY: text}), part)


def read_about(path: Path) -> dict[str, Any]:
    """The description in a file of `write_arrays`, without its arrays. Raises ValueError naming
    the file, when it is absent, damaged or another's.
    """
    with reading(str(path)), _opened(path) as file:
        return _about(path, file.metadata() or {})


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the arrays. Raises ValueError as `read_about` does."""
    with reading(str(path)), _opened(path) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _about(path, file.metadata() or {}), arrays


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "np")
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from error


def _about(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        about = json.loads(metadata.get(METADATA_KEY, ""))
    except ValueError as error:
        raise ValueError(f"{path}: not written by foldcp ({error})") from error
    if not isinstance(about, dict):
        raise ValueError(f"{path}: metadata {METADATA_KEY!r} is not a JSON object")
    return about
