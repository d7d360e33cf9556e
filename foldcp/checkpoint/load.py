"""Checkpoints -> networks: a Boltz-2 file, strictly, or seeded random weights for trying things
out.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foldcp.checkpoint.lightning import read_lightning
from foldcp.checkpoint.safetensors_file import ALIGNMENT, is_safetensors, read_safetensors
from foldcp.checkpoint.torch_archive import MAGIC
from foldcp.config import UNTRAINED, Architecture, Precision, read_architecture
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.files import file_sha256, is_regular, reading
from foldcp.model.boltz2 import Boltz2
from foldcp.model.layers.layers import LayerNorm, Linear, set_compute_dtype
from foldcp.model.layers.transformer import DiffusionLayer

Sampling = Literal["fp32", "bf16"]

UNTRAINED_PREFIX = "untrained:"
# Boltz's training losses and logging leave these in a state dict; nothing is computed with them.
NOT_WEIGHTS = ("validators.", "train_confidence_loss")


def load(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    sampling: Sampling | None = None,
    cp: ContextParallel | None = None,
    expected: str = "",
) -> Boltz2:
    """The network of a Boltz-2 checkpoint (or of `untrained:tiny`, `untrained:boltz2`) on one rank
    of a group.

    The file, a Lightning checkpoint or safetensors, is memory-mapped: ranks on one machine share
    its pages. EMA weights are preferred where present. No code of the file runs. Raises ValueError
    naming the file when its `identity` is not the `expected` one, when it is no Boltz-2 structure
    model, and naming every parameter that is missing, unexpected or of another shape or type.
    """
    cp = cp or ContextParallel()
    name = str(path)
    if name.startswith(UNTRAINED_PREFIX):
        model = _untrained(name, cp)
    else:
        if expected and identity(path) != expected:
            raise ValueError(f"{path}: the weights have changed since the run began")
        architecture, weights = read(Path(path))
        model = _build(architecture, cp)
        _check(Path(path), model, weights)
        model.load_state_dict(
            {name: _aligned(w) for name, w in weights.items()}, strict=True, assign=True
        )
    model.requires_grad_(False).to(device)
    set_precision(model, precision, sampling)
    return model.eval()


def identity(path: str | Path) -> str:
    """What names a checkpoint's content: `untrained:tiny`, or the SHA-256 of the file."""
    if str(path).startswith(UNTRAINED_PREFIX):
        _untrained_architecture(str(path))
        return str(path)
    if not is_regular(Path(path)):
        raise ValueError(f"{path}: no such checkpoint file")
    with reading(str(path)):
        return "sha256:" + file_sha256(Path(path))


def is_untrained(path: str | Path) -> bool:
    return str(path).startswith(UNTRAINED_PREFIX)


def set_precision(model: Boltz2, precision: Precision, sampling: Sampling | None = None) -> None:
    """`fp32`, or bf16 for the matrix products over pairs (`mixed`, `bf16`; they differ in how z is
    kept).

    Single representation, norms, coordinates and noise stay fp32. `sampling` is the arithmetic
    inside the transformers of the score network: bf16 unless precision is fp32.
    """
    if (sampling or ("fp32" if precision == "fp32" else "bf16")) == "bf16":
        score = model.structure_module.score_model
        atoms = (
            score.atom_attention_encoder.atom_encoder,
            score.atom_attention_decoder.atom_decoder,
        )
        for part in (score.token_transformer, score.single_conditioner.transitions):
            set_compute_dtype(part, torch.bfloat16)
        # Between atoms only attention: transitions and modulations, in bf16, would double the error
        # of coordinates and exceed that of Boltz's bf16-mixed. So the transitions work with split
        # fp32 numbers.
        for layer in (
            layer
            for atom_transformer in atoms
            for layer in atom_transformer.diffusion_transformer.layers
        ):
            assert isinstance(layer, DiffusionLayer)
            set_compute_dtype(layer.pair_bias_attn, torch.bfloat16)
            layer.transition.split = True
    if precision == "fp32":
        return
    pair_parts: list[nn.Module] = [
        model.msa_module,
        model.diffusion_conditioning.pairwise_conditioner,
    ]
    pair_parts += [
        model.diffusion_conditioning.token_trans_proj_z,
        model.z_recycle,
        model.z_norm,
    ]
    if model.architecture.use_templates:
        pair_parts.append(model.template_module)
    for stack in (model.pairformer_module, model.confidence_module.pairformer_stack):
        for layer in stack.layers:
            pair_parts += [getattr(layer, name) for name in PAIR_UPDATES]
            pair_parts.append(layer.attention.proj_z)  # type: ignore[union-attr]
    for part in pair_parts:
        set_compute_dtype(part, torch.bfloat16)


PAIR_UPDATES = (
    "tri_mul_out",
    "tri_mul_in",
    "tri_att_start",
    "tri_att_end",
    "transition_z",
)


def residual_type(precision: Precision) -> torch.dtype:
    """The type in which the pair representation is kept."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def read(path: Path) -> tuple[Architecture, dict[str, Tensor]]:
    """Architecture and weights of a Boltz-2 structure checkpoint: as Lightning writes it, or of
    `foldcp convert`.

    Which of the two it is, its first bytes say. The weights are memory-mapped. Raises ValueError as
    `load` does, but for parameters that do not fit.
    """
    if not is_regular(path):
        raise ValueError(f"{path}: no such checkpoint file")
    with reading(str(path)), path.open("rb") as file:
        head = file.read(9)
    if head.startswith(MAGIC):
        hyper_parameters, weights = read_lightning(path)
    elif is_safetensors(head):
        about, weights = read_safetensors(path)
        hyper_parameters = about.get("hyper_parameters")
    else:
        raise ValueError(
            f"{path}: not a checkpoint (neither a zip archive of torch.save nor safetensors)"
        )
    if not isinstance(hyper_parameters, Mapping):
        raise ValueError(f"{path}: not a checkpoint of Boltz-2 (no hyper_parameters)")
    with reading(str(path)):  # options may be anything, even tensors
        _refuse_other_models(path, hyper_parameters, weights)
        try:
            architecture = read_architecture(hyper_parameters)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return architecture, {
        name: w for name, w in weights.items() if not name.startswith(NOT_WEIGHTS)
    }


def check(path: Path, architecture: Architecture, weights: Mapping[str, Tensor]) -> None:
    """ValueError naming the file and every parameter that is missing, unexpected, or of another
    shape or type.
    """
    _check(path, _build(architecture, ContextParallel()), weights)


def _refuse_other_models(
    path: Path, hyper_parameters: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> None:
    if hyper_parameters.get("affinity_prediction") or any(
        name.startswith("affinity_module") for name in weights
    ):
        raise ValueError(
            f"{path}: an affinity model (boltz2_aff); give the structure model, boltz2_conf.ckpt"
        )
    if "contact_conditioning.encoder.weight" not in weights:
        raise ValueError(
            f"{path}: a Boltz-1 model, or another network; only Boltz-2's structure model "
            "is supported"
        )


def _build(architecture: Architecture, cp: ContextParallel) -> Boltz2:
    with torch.device("meta"):
        return Boltz2(architecture, cp)


def _check(path: Path, model: Boltz2, weights: Mapping[str, Tensor]) -> None:
    expected = model.state_dict()
    wrong = [f"missing {name}" for name in expected if name not in weights]
    wrong += [f"unexpected {name}" for name in weights if name not in expected]
    for name in (name for name in expected if name in weights):
        x = weights[name]
        y = expected[name]
        if x.shape != y.shape:
            wrong.append(f"{name} has shape {tuple(x.shape)}, not {tuple(y.shape)}")
        elif x.dtype != y.dtype:
            wrong.append(f"{name} has type {x.dtype}, not {y.dtype}")
    if wrong:
        raise ValueError(f"{path}: {len(wrong)} parameters do not fit Boltz-2: " + "; ".join(wrong))


def _aligned(weight: Tensor) -> Tensor:
    """A weight where it can be computed with: CPU libraries round differently at other addresses,
    and the place of a weight in its file should not change a prediction.
    """
    return weight if weight.data_ptr() % ALIGNMENT == 0 else weight.clone()


def _untrained_architecture(name: str) -> Architecture:
    size = name.removeprefix(UNTRAINED_PREFIX)
    if size not in UNTRAINED:
        raise ValueError(
            f"checkpoint {name!r}: untrained networks are "
            f"{', '.join(UNTRAINED_PREFIX + s for s in UNTRAINED)}"
        )
    return UNTRAINED[size]


def _untrained(name: str, cp: ContextParallel) -> Boltz2:
    """Random weights of sensible scale, each tensor from a generator of its own, seeded by its
    name.
    """
    model = _build(_untrained_architecture(name), cp).to_empty(device="cpu")
    for prefix, module in model.named_modules(remove_duplicate=False):
        for leaf, parameter in module.named_parameters(recurse=False):
            generator = torch.Generator().manual_seed(zlib.crc32(f"{prefix}.{leaf}".encode()))
            with torch.no_grad():
                parameter.copy_(_draw(module, leaf, parameter, generator))
    confidence = model.confidence_module
    confidence.boundaries.copy_(torch.linspace(2, 22, len(confidence.boundaries)))
    return model


def _draw(module: nn.Module, leaf: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(parameter.shape, generator=generator)
    if isinstance(module, LayerNorm):
        return 0.1 * noise + (leaf == "weight")
    if isinstance(module, Linear) and leaf == "weight":
        return noise * parameter.shape[1] ** -0.5
    return 0.3 * noise
