"""Architecture of a checkpoint, read without its weights and without torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from foldcp.checkpoint.archive import MAGIC, read_outline
from foldcp.checkpoint.identity import check_exists, is_untrained, untrained_architecture
from foldcp.checkpoint.lightning import lightning_parts
from foldcp.config import Architecture, read_architecture
from foldcp.files import reading

METADATA_KEY = "foldcp"  # in safetensors files
_HEAD_BYTES = 9  # that tell a zip archive from safetensors


def checkpoint_architecture(name: str | Path) -> Architecture:
    """The sizes of the network of a checkpoint file or of `untrained:tiny`, `untrained:boltz2`.

    Raises ValueError naming the file when it is not a checkpoint of Boltz-2's structure model, as
    far as that can be told without its weights.
    """
    if is_untrained(name):
        return untrained_architecture(str(name))
    path = Path(name)
    if is_archive(path):
        hyper_parameters, weights = lightning_parts(path, read_outline(path), _is_outline)
        return structure_architecture(path, hyper_parameters, weights)
    with reading(str(path)):
        try:
            with safe_open(path, "np") as file:
                about = read_metadata(path, file.metadata() or {})
                names = list(file.keys())
        except SafetensorError as error:
            raise ValueError(f"{path}: not a readable safetensors file ({error})") from error
    return structure_architecture(path, about.get("hyper_parameters"), names)


def _is_outline(value: Any) -> bool:
    """Whether this stands for a tensor in what `lightning_parts` has made plain."""
    return value is None


def is_archive(path: Path) -> bool:
    """Whether a checkpoint is an archive of torch.save, by its first bytes, and not safetensors.

    Raises ValueError naming the file when it is neither.
    """
    check_exists(path)
    with reading(str(path)), path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head.startswith(MAGIC) and not is_safetensors(head):
        raise ValueError(
            f"{path}: not a checkpoint (neither a zip archive of torch.save nor safetensors)"
        )
    return head.startswith(MAGIC)


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins so is safetensors: eight bytes of length, then JSON."""
    return head[8:9] == b"{"


def read_metadata(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The description that `foldcp convert` wrote. Raises ValueError naming the file."""
    if METADATA_KEY not in metadata:
        raise ValueError(
            f"{path}: does not describe the network of its weights; use a file written by "
            "`foldcp convert`"
        )
    try:
        about = json.loads(metadata[METADATA_KEY])
    except ValueError as error:
        raise ValueError(f"{path}: metadata {METADATA_KEY!r} is not JSON ({error})") from error
    if not isinstance(about, dict):
        raise ValueError(f"{path}: metadata {METADATA_KEY!r} is not a JSON object")
    return about


def structure_architecture(
    path: Path, hyper_parameters: Any, names: Collection[str]
) -> Architecture:
    """The architecture of a file with these hyper parameters and names of weights.

    Raises ValueError naming the file when it is not Boltz-2's structure model.
    """
    if not isinstance(hyper_parameters, Mapping):
        raise ValueError(f"{path}: not a checkpoint of Boltz-2 (no hyper_parameters)")
    with reading(str(path)):  # options may be anything, even tensors
        _check_is_structure_model(path, hyper_parameters, names)
        try:
            return read_architecture(hyper_parameters)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _check_is_structure_model(
    path: Path, hyper_parameters: Mapping[str, Any], names: Collection[str]
) -> None:
    if hyper_parameters.get("affinity_prediction") or any(
        name.startswith("affinity_module") for name in names
    ):
        raise ValueError(
            f"{path}: an affinity model (boltz2_aff); give the structure model, boltz2_conf.ckpt"
        )
    if "contact_conditioning.encoder.weight" not in names:
        raise ValueError(
            f"{path}: a Boltz-1 model, or another network; only Boltz-2's structure model "
            "is supported"
        )
