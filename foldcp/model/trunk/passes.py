"""The state of the trunk between its passes, which may be kept for a later attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class PassState:
    """This rank's rows of s and z after `num_passes` passes; z changes in the next one."""

    num_passes: int
    s: Float[Tensor, "I S"]
    z: Float[Tensor, "I N Z"]


@runtime_checkable
class PassKeeper(Protocol):
    """Keeps the state after each pass but the last. All methods are collective."""

    def restore(self, num_tokens: int, N: int, dtype: torch.dtype) -> PassState | None:
        """The state that was kept last for this fold; None if there is none.

        For `num_tokens` tokens, padded to N, with z in `dtype`.
        """
        ...

    def keep(self, state: PassState) -> None:
        """Keep a state; whether it could be kept makes no difference to the fold."""
        ...


class NoPassKeeper:
    """Keeps nothing."""

    def restore(self, num_tokens: int, N: int, dtype: torch.dtype) -> None:
        return None

    def keep(self, state: PassState) -> None:
        pass
