"""Random weights of sensible scale, the same in every process."""

from __future__ import annotations

import zlib

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.model.boltz2 import Boltz2
from foldcp.model.layers.layers import LayerNorm, Linear

PAE_SLOPE = 4.0  # of a head's logits from the middle bin to the last, in terms of those of a bin


def init_random_weights(model: Boltz2) -> None:
    """Fill the parameters, on the CPU, each from its own generator, which its name seeds."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, parameter in module.named_parameters(recurse=False):
            seed = zlib.crc32(f"{prefix}.{name}".encode())
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                parameter.copy_(_random_parameter(module, name, parameter, generator))
    heads = model.confidence_module.confidence_heads
    for head in (heads.to_pae_intra_logits, heads.to_pae_inter_logits):
        _spread(head.weight)
    boundaries = model.confidence_module.boundaries
    boundaries.copy_(torch.linspace(2, 22, len(boundaries)))


def _random_parameter(
    module: nn.Module, name: str, parameter: Tensor, generator: torch.Generator
) -> Tensor:
    noise = torch.randn(parameter.shape, generator=generator)
    if isinstance(module, LayerNorm):
        return 0.1 * noise + (name == "weight")
    if isinstance(module, Linear) and name == "weight":
        return noise * parameter.shape[1] ** -0.5
    return 0.3 * noise


@torch.no_grad()
def _spread(weight: Float[Tensor, "B Z"]) -> None:
    """Let a head favour low or high bins together, by one random direction of z.

    Otherwise every bin has its own and the expected PAE is close to 16 Å for all pairs, beyond the
    cutoff of ipSAE.
    """
    slope = torch.linspace(-PAE_SLOPE, PAE_SLOPE, len(weight))
    weight += slope[:, None] * weight[1]
