"""Precision policy: which parts of the network compute in bf16.

Which precision a fold gets is decided elsewhere: `model.precision` and, where that is `auto`, by
`CostModel.precisions` and `smallest_shape` in `pipeline/scheduling/`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from foldcp.config import Precision
from foldcp.model.boltz2 import Boltz2
from foldcp.model.layers.layers import set_compute_dtype
from foldcp.model.layers.transformer import DiffusionLayer
from foldcp.model.trunk.pairformer import Pairformer, PairformerLayer
from foldcp.model.trunk.triangle import TriangleMultiplication

Sampling = Literal["fp32", "bf16"]

_PAIR_UPDATES = (
    "tri_mul_out",
    "tri_mul_in",
    "tri_att_start",
    "tri_att_end",
    "transition_z",
)


def set_precision(model: Boltz2, precision: Precision, sampling: Sampling | None = None) -> None:
    """Set the types in which the layers compute; weights are cast accordingly.

    Single representation, norms, coordinates and noise are fp32 whatever the precision; where pairs
    are multiplied in bf16 and there is a kernel, the single representation attends in fp16, and its
    other products are in TF32.

    Args:
        precision: fp32, or bf16 for the matrix products over pairs of tokens (mixed and bf16, which
            differ in `residual_dtype` only; and bf16-int8, where those of triangle multiplication
            are kept in 8 bits).
        sampling: of the transformers of the score network and of what atoms give to tokens; bf16
            unless `precision` is fp32.
    """
    if sampling is None:
        sampling = "fp32" if precision == "fp32" else "bf16"
    if sampling == "bf16":
        _set_sampling_bf16(model)
    if precision != "fp32":
        for part in _pair_modules(model):
            set_compute_dtype(part, torch.bfloat16)
        for stack in _pairformers(model):
            for layer in stack.layers:
                assert isinstance(layer, PairformerLayer)
                layer.attention.tf32 = True
                layer.transition_s.tf32 = True
    set_products(model, precision)


def set_products(module: nn.Module, precision: Precision) -> None:
    """Whether the products of triangle multiplications are kept in 8 bits."""
    for part in module.modules():
        if isinstance(part, TriangleMultiplication):
            part.keep_int8 = precision == "bf16-int8"


def residual_dtype(precision: Precision) -> torch.dtype:
    """The type in which the pair representation is kept between layers."""
    return torch.bfloat16 if precision in ("bf16", "bf16-int8") else torch.float32


def _set_sampling_bf16(model: Boltz2) -> None:
    score = model.structure_module.score_model
    for part in (
        score.token_transformer,
        score.single_conditioner.transitions,
        score.atom_attention_encoder.atom_to_token_trans,
    ):
        set_compute_dtype(part, torch.bfloat16)
    # Of the atom transformers only the attention: transitions and modulations, in bf16, would
    # double the error of coordinates and exceed that of Boltz's bf16-mixed. The transitions compute
    # in fp16, eight times as exactly.
    encoder = score.atom_attention_encoder.atom_encoder.diffusion_transformer
    decoder = score.atom_attention_decoder.atom_decoder.diffusion_transformer
    for layer in (*encoder.layers, *decoder.layers):
        assert isinstance(layer, DiffusionLayer)
        set_compute_dtype(layer.pair_bias_attn, torch.bfloat16)
        layer.transition.in_one_pass = True


def _pair_modules(model: Boltz2) -> list[nn.Module]:
    """The modules that compute with pairs of tokens."""
    modules: list[nn.Module] = [
        model.msa_module,
        model.diffusion_conditioning.pairwise_conditioner,
        model.diffusion_conditioning.token_trans_proj_z,
        model.z_recycle,
        model.z_norm,
    ]
    if model.architecture.use_templates:
        modules.append(model.template_module)
    for stack in _pairformers(model):
        for layer in stack.layers:
            modules += [getattr(layer, name) for name in _PAIR_UPDATES]
            modules.append(layer.attention.proj_z)  # type: ignore[union-attr]
    return modules


def _pairformers(model: Boltz2) -> tuple[Pairformer, Pairformer]:
    """The stacks that refine the single representation."""
    return model.pairformer_module, model.confidence_module.pairformer_stack
