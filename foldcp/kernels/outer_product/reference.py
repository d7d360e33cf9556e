"""What outer products add to the pair representation; the PyTorch reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import add_residual


@dataclass(frozen=True)
class OuterProductWeights:
    """The matrix from the D x D numbers of an outer product to the pair, and its bias."""

    weight: Float[Tensor, "C K"]  # K = D D
    bias: Float[Tensor, " C"]


class AddOuterProducts:
    """z + weight outer / count + bias; in place where gradients are disabled.

    `outer` has the sums of outer products over an alignment's sequences, `count` how many sequences
    they are of. Source: AlphaFold 3, algorithm 9, lines 3 and 4.
    """

    def __call__(
        self,
        z: Float[Tensor, "I J C"],
        outer: Float[Tensor, "D I J E"],
        count: Float[Tensor, "I J"],
        weights: OuterProductWeights,
    ) -> Float[Tensor, "I J C"]:
        """E = D: the first factor's channels come first, the second one's last."""
        product = F.linear(outer.permute(1, 2, 0, 3).flatten(2), weights.weight)
        return add_residual(z, product / count[..., None] + weights.bias)

    def bytes_per_row(self, J: int, weights: OuterProductWeights) -> int:
        """Bytes of the intermediates of a row of J pairs: the outer products in another layout and
        as the product takes them, and the update before and after its bias.
        """
        channels, products = weights.weight.shape
        return J * (2 * products + 2 * channels) * 4
