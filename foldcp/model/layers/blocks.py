"""Blocks of layers in training: dropout of their updates, and how they are run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# Calls block(*args) and returns what it returns: at once, or so that what it computes in between
# is computed again for its gradient.
RunBlock = Callable[..., Any]


def run_block(block: Callable[..., Any], *args: Any) -> Any:
    """block(*args), at once."""
    return block(*args)


def add_update(
    update: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "*S C"],
    mask: Float[Tensor, " N"],
    scale: Float[Tensor, "*B"] | None,
) -> Float[Tensor, "*S C"]:
    """x + scale u of a layer that makes x + u of x; the same for None as for ones.

    Dropout of an update scales it by 0 or by the inverse of the share that is kept.
    """
    if scale is None:
        return update(x, mask)
    before = x if torch.is_grad_enabled() else x.clone()  # layers then update x in place
    return torch.lerp(before, update(x, mask), scale[..., None].to(x.dtype))
