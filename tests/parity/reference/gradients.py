"""Gradients through Boltz's modules, each given what it is given in a prediction."""

from __future__ import annotations

import zlib
from typing import Any

import pytorch_lightning
import torch
from boltz.model.models.boltz2 import Boltz2
from prediction import BLOCK
from saving import FROM_DICTIONARIES, Call, outputs, recorded_calls, tensors
from torch import Tensor

MODULES = {
    "input_embedder",
    "template_module",
    "msa_module",
    "msa_module.layers.0.pair_weighted_averaging",
    "msa_module.layers.0.outer_product_mean",
    "msa_module.layers.0.msa_transition",
    "pairformer_module.layers.0",
    *(f"pairformer_module.layers.0.{part}" for part in BLOCK),
    "diffusion_conditioning",
    "structure_module.score_model",
}
NUMBERS = {  # arguments that have a gradient, by Boltz's names
    "ref_pos",
    "profile",
    "deletion_mean",
    "z",
    "s",
    "m",
    "x",
    "emb",
    "s_trunk",
    "z_trunk",
    "s_inputs",
    "r_noisy",
    "q",
    "c",
    "atom_enc_bias",
    "atom_dec_bias",
    "token_trans_bias",
}
RELATIVE = "relative_position_encoding"


def gradients(model: Boltz2, feats: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    """{module: inputs, outputs, the random gradients given to these, and those of inputs and
    parameters}.
    """
    pytorch_lightning.seed_everything(0, verbose=False)
    with (
        torch.no_grad(),
        recorded_calls(model, MODULES, lambda name, module, arguments, out: arguments) as calls,
    ):
        model.predict_step(dict(feats), 0)
    model.requires_grad_(True)
    return {name: _of(name, model, arguments, feats) for name, arguments in calls.items()}


def _of(name: str, model: Boltz2, arguments: Call, feats: dict[str, Tensor]) -> dict[str, Any]:
    module = model.get_submodule(name)
    inputs = {
        key: x.detach().clone() for key, x in tensors(name, arguments).items() if key != RELATIVE
    }
    leaves = {key: x.requires_grad_() for key, x in inputs.items() if key in NUMBERS}
    model.zero_grad(set_to_none=True)
    arguments = _replaced(name, arguments, leaves)
    if RELATIVE in arguments:  # ours is made anew where it is used
        arguments[RELATIVE] = model.rel_pos(feats)
    out = outputs(module(**arguments))
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    weights = [torch.randn(x.shape, generator=generator) for x in out]
    torch.autograd.backward(out, weights)
    return {
        "in": {key: x.detach() for key, x in inputs.items()},
        "out": [x.detach() for x in out],
        "given": weights,
        "grad_in": {key: _gradient(x) for key, x in leaves.items()},
        "grad_parameters": {
            key: p.grad for key, p in model.named_parameters() if p.grad is not None
        },
    }


def _replaced(name: str, arguments: Call, leaves: dict[str, Tensor]) -> Call:
    """The arguments with the leaves in place of the tensors that they are copies of."""
    originals = tensors(name, arguments)
    leaf_of = {id(originals[key]): leaf for key, leaf in leaves.items()}
    argument, _ = FROM_DICTIONARIES.get(name, ("", ()))
    changed = {key: leaf_of.get(id(x), x) for key, x in arguments.items()}
    if argument:
        changed[argument] = {key: leaf_of.get(id(x), x) for key, x in arguments[argument].items()}
    return changed


def _gradient(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad
