"""Linear layers of the single representation; the PyTorch reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class LinearOps:
    """Products with weights, in their type, and what is done with each number before or after."""

    def linear(
        self,
        x: Float[Tensor, "*I K"],
        weights: Sequence[Float[Tensor, "J K"]],
        bias: Float[Tensor, " J"] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Float[Tensor, "*I _"]:
        """x W^T for each of at most four weights, side by side, in `dtype`, or that of the weights;
        `bias` is added to the first.
        """
        weight = weights[0] if len(weights) == 1 else torch.cat(list(weights))
        out = F.linear(x.to(weight.dtype), weight)
        if bias is not None:
            out = out + F.pad(bias, (0, len(weight) - len(bias)))
        return out if dtype is None else out.to(dtype)

    def swiglu(
        self,
        x: Float[Tensor, "*I K"],
        fc1: Float[Tensor, "E K"],
        fc2: Float[Tensor, "E K"],
    ) -> Float[Tensor, "*I E"]:
        """silu(x fc1^T) * (x fc2^T). Source: AlphaFold 3, algorithm 11, lines 2 to 4."""
        x = x.to(fc1.dtype)
        return F.silu(F.linear(x, fc1)) * F.linear(x, fc2)
