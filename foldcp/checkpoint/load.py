"""Loading of a network from a Boltz-2 checkpoint, strictly and without running code of the file."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foldcp.checkpoint.architecture import is_archive, structure_architecture
from foldcp.checkpoint.identity import (
    checkpoint_identity,
    is_untrained,
    untrained_architecture,
)
from foldcp.checkpoint.lightning import lightning_parts
from foldcp.checkpoint.precision import Sampling, set_precision
from foldcp.checkpoint.random_weights import init_random_weights
from foldcp.checkpoint.safetensors_file import ALIGNMENT, read_safetensors
from foldcp.checkpoint.torch_archive import read_archive
from foldcp.config import Architecture, KernelSetting, Precision
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.kernels.dispatch import Backend, choose_backend
from foldcp.model.boltz2 import Boltz2
from foldcp.model.layers.layers import set_backend

# Boltz's training losses and logging leave these in a state dict; the network does not read them.
_NOT_WEIGHTS = ("validators.", "train_confidence_loss")


def load(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    sampling: Sampling | None = None,
    cp: ContextParallel | None = None,
    kernels: KernelSetting = "auto",
    chunk_bytes: int = 0,
    expected: str = "",
) -> Boltz2:
    """The network of a Boltz-2 checkpoint on one rank of a group, in evaluation mode.

    The file is memory-mapped, so ranks on one machine share its pages. EMA weights are preferred
    where present. No code of the file runs.

    Args:
        path: a Lightning checkpoint or safetensors file, or `untrained:tiny`, `untrained:boltz2`
            for random weights.
        device: where the weights go.
        precision: see `set_precision`, as `sampling`.
        cp: the group of ranks; this process alone if None.
        kernels: the implementation of the operations, see `foldcp.kernels.dispatch`; the model's
            `backend` says which were chosen.
        chunk_bytes: the memory of a chunk; 0 sizes it by what is free.
        expected: the `checkpoint_identity` that the file must have; "" is any.

    Raises:
        ValueError: naming the file when its identity is not the expected one or it is not a Boltz-2
            structure model, and naming every parameter that is missing, unexpected or of another
            shape or type; and when the kernels cannot run on the device.
    """
    device = torch.device(device)
    backend = choose_backend(kernels, device)
    weights = read_weights(path, device, expected)
    return build(
        weights, device, backend, precision, sampling, cp or ContextParallel(), chunk_bytes
    )


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a checkpoint on a device; none for random ones."""

    path: str | Path
    architecture: Architecture
    tensors: Mapping[str, Tensor] | None


def read_weights(path: str | Path, device: torch.device, expected: str = "") -> Weights:
    """The weights of a checkpoint, whose identity is `expected` unless that is empty.

    Raises ValueError as `load` does, but for parameters that do not fit.
    """
    if is_untrained(path):
        return Weights(path, untrained_architecture(str(path)), None)
    with ThreadPoolExecutor(1) as other:
        # Hashing takes seconds, and lets this thread copy.
        identity = other.submit(checkpoint_identity, path) if expected else None
        try:
            architecture, found = read_checkpoint(Path(path))
        except ValueError:
            _check_identity(path, identity, expected)
            raise
        tensors = {name: _aligned(weight.to(device)) for name, weight in found.items()}
        _check_identity(path, identity, expected)
    return Weights(path, architecture, tensors)


def build(
    weights: Weights,
    device: torch.device,
    backend: Backend,
    precision: Precision,
    sampling: Sampling | None,
    cp: ContextParallel,
    chunk_bytes: int,
) -> Boltz2:
    """The network with these weights; arguments and errors are those of `load`."""
    model = build_model(weights.architecture, cp)
    if weights.tensors is None:
        init_random_weights(model)
    else:
        _check_fit(weights.path, model, weights.tensors)
        model.load_state_dict(weights.tensors, strict=True, assign=True)
    model.requires_grad_(False).to(device)
    model.budget.fixed_bytes = chunk_bytes
    set_precision(model, precision, sampling)
    set_backend(model, backend)
    return model.eval()


def _check_identity(path: str | Path, identity: Future[str] | None, expected: str) -> None:
    if identity and identity.result() != expected:
        raise ValueError(f"{path}: the weights have changed since the run began")


def read_checkpoint(path: Path) -> tuple[Architecture, dict[str, Tensor]]:
    """Architecture and memory-mapped weights of a Boltz-2 structure checkpoint.

    The first bytes tell a file of Lightning from one of `foldcp convert`. Raises ValueError as
    `load` does, but for parameters that do not fit.
    """
    if is_archive(path):
        contents = read_archive(path)
        hyper_parameters, weights = lightning_parts(path, contents, _is_tensor)
    else:
        about, weights = read_safetensors(path)
        hyper_parameters = about.get("hyper_parameters")
    architecture = structure_architecture(path, hyper_parameters, weights)
    weights = {
        name: weight for name, weight in weights.items() if not name.startswith(_NOT_WEIGHTS)
    }
    return architecture, weights


def check_weights(path: Path, architecture: Architecture, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError naming the file and every parameter that does not fit the architecture."""
    _check_fit(path, build_model(architecture, ContextParallel()), weights)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def build_model(architecture: Architecture, cp: ContextParallel) -> Boltz2:
    """The network with weights that nothing was written to, which take no memory yet.

    Not on the meta device: there, operations import PyTorch's compiler, which takes seconds.
    """
    return Boltz2(architecture, cp)


def _check_fit(path: str | Path, model: Boltz2, weights: Mapping[str, Tensor]) -> None:
    expected = model.state_dict()
    problems = [f"missing {name}" for name in expected if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in expected]
    for name, parameter in expected.items():
        if name not in weights:
            continue
        weight = weights[name]
        if weight.shape != parameter.shape:
            problems.append(f"{name} has shape {tuple(weight.shape)}, not {tuple(parameter.shape)}")
        elif weight.dtype != parameter.dtype:
            problems.append(f"{name} has type {weight.dtype}, not {parameter.dtype}")
    if problems:
        raise ValueError(
            f"{path}: {len(problems)} parameters do not fit Boltz-2: " + "; ".join(problems)
        )


def _aligned(weight: Tensor) -> Tensor:
    """A weight at an aligned address, copied if necessary.

    CPU libraries round differently at other addresses, and the place of a weight in its file should
    not change a prediction.
    """
    return weight if weight.data_ptr() % ALIGNMENT == 0 else weight.clone()
