"""New weights to train, by AlphaFold's rules: every residual update is zero at first."""

from __future__ import annotations

import math
from fnmatch import fnmatch

import torch
from torch import Tensor, nn

from foldcp.model.boltz2 import Boltz2
from foldcp.model.layers.layers import FourierEmbedding, LayerNorm, Linear

# Weights that are zero at first. Source: Boltz, `layers/initialize.py` and its uses.
ZERO = (
    "*.proj_o.*",
    "*.fc3.weight",
    "*.p_out.weight",
    "*.g_in.weight",
    "*.g_out.weight",
    "*.mha.linear_o.weight",
    "*.mha.linear_g.weight",
    "s_recycle.weight",
    "z_recycle.weight",
    "*.s_to_c_trans.1.weight",
    "*.z_to_p_trans.1.weight",
    "*.c_to_p_trans_[kq].1.weight",
    "*.p_mlp.5.weight",
    "*.r_to_q_trans.weight",
    "*.a_to_q_trans.weight",
    "*.atom_feat_to_atom_pos_update.1.weight",
    "*.s_to_a_linear.1.weight",
    "*.output_projection_linear.weight",
    "*.output_projection.0.weight",
    "confidence_module.dist_bin_pairwise_embed.weight",
    "confidence_module.s_to_z.weight",
    "confidence_module.s_to_z_transpose.weight",
    "confidence_module.s_to_z_prod_out.weight",
    "confidence_module.s_input_to_s.weight",
    "input_embedder.*_conditioning_init.weight",
    "*contact_conditioning.encoding_un*",
)
GATE_BIAS = -2.0  # of the gates of the diffusion transformers: closed at first
# Weights that are normal with the variance 1 / inputs, cut off at two standard deviations (LeCun).
TRUNCATED = ("*.p_in.weight", "*.fc1.weight", "*.fc2.weight")
GLOROT = ("*.mha.linear_[qkv].weight",)
CUT_STD = 0.8796  # of a standard normal number that is cut off at two


@torch.no_grad()
def init_weights(model: Boltz2, seed: int) -> None:
    """Fill the weights, on the CPU, in the order of their names; the same on every rank."""
    generator = torch.Generator().manual_seed(seed)
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, parameter in sorted(model.named_parameters()):
        prefix, _, leaf = name.rpartition(".")
        parent = modules[prefix.rpartition(".")[0]] if "." in prefix else model
        _init(name, leaf, modules[prefix], parent, parameter, generator)
    boundaries = model.confidence_module.boundaries
    boundaries.copy_(torch.linspace(2, 22, len(boundaries)))


def _init(
    name: str,
    leaf: str,
    module: nn.Module,
    parent: nn.Module,
    parameter: Tensor,
    generator: torch.Generator,
) -> None:
    if isinstance(module, LayerNorm):
        parameter.fill_(leaf == "weight")
    elif isinstance(parent, FourierEmbedding) or isinstance(module, nn.Embedding):
        parameter.normal_(generator=generator)
    elif leaf == "bias" and "output_projection" in name:
        parameter.fill_(GATE_BIAS)
    elif isinstance(module, Linear):
        _init_linear(name, module, parameter, generator)
    if any(fnmatch(name, pattern) for pattern in ZERO):
        parameter.zero_()


def _init_linear(name: str, module: Linear, parameter: Tensor, generator: torch.Generator) -> None:
    """Uniform with the variance 1 / (3 inputs), as PyTorch's, unless a list says otherwise."""
    bound = module.in_features**-0.5
    if any(fnmatch(name, pattern) for pattern in TRUNCATED):
        std = bound / CUT_STD
        nn.init.trunc_normal_(parameter, 0.0, std, -2 * std, 2 * std, generator)
        return
    if any(fnmatch(name, pattern) for pattern in GLOROT):
        bound = math.sqrt(6 / (module.in_features + module.out_features))
    parameter.uniform_(-bound, bound, generator=generator)
