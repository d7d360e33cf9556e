"""The transition and its weights; the PyTorch reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import add_residual
from foldcp.kernels.layer_norm import layer_norm


@dataclass(frozen=True)
class TransitionWeights:
    """A two-layer network with E hidden channels and the LayerNorm before it."""

    norm_weight: Float[Tensor, " C"]
    norm_bias: Float[Tensor, " C"]
    fc1: Float[Tensor, "E C"]
    fc2: Float[Tensor, "E C"]
    fc3: Float[Tensor, "C E"]


class AddTransition:
    """z + fc3 (silu(fc1 x) * (fc2 x)) with x = LayerNorm(z); in place where gradients are disabled.

    Computed in the type of fc1, statistics in fp32. Source: AlphaFold 3, algorithm 11.
    """

    def __call__(
        self, z: Float[Tensor, "*B C"], weights: TransitionWeights
    ) -> Float[Tensor, "*B C"]:
        w = weights
        x = layer_norm(z, w.norm_weight, w.norm_bias).to(w.fc1.dtype)
        return add_residual(z, F.linear(F.silu(F.linear(x, w.fc1)) * F.linear(x, w.fc2), w.fc3))

    def bytes_per_row(self, N: int, weights: TransitionWeights) -> int:
        """Bytes of the intermediates of a row of N pairs."""
        hidden, channels = weights.fc1.shape
        return N * (3 * hidden + 2 * channels) * 4
