"""The error that Boltz's own bf16-mixed makes, on a CPU.

Lightning's bf16-mixed is torch.autocast on the GPU. Two things make the CPU's equal to it: the
parts that Boltz takes out (`torch.autocast("cuda", enabled=False)`) are taken out here too, and the
operations that autocast does in fp32 on a GPU but not on a CPU (softmax, LayerNorm, sums, ..) are
done in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

# Of https://docs.pytorch.org/docs/stable/amp.html#cuda-ops-that-autocast-to-float32, those that
# Boltz uses.
IN_FP32 = {
    torch.nn.functional.layer_norm,
    torch.nn.functional.softmax,
    torch.softmax,
    Tensor.softmax,
    torch.sum,
    Tensor.sum,
    torch.cumsum,
    torch.cdist,
    torch.norm,
    Tensor.norm,
    torch.exp,
    Tensor.exp,
    torch.log,
    Tensor.log,
    torch.pow,
    Tensor.pow,
    Tensor.__pow__,
    torch.nn.functional.normalize,
    torch.rsqrt,
    torch.reciprocal,
    Tensor.__rdiv__,
    torch.prod,
    Tensor.prod,
}


class Autocast(torch.autocast):
    """torch.autocast that takes a CPU for the GPU it is asked for."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


class AsOnGpu(TorchFunctionMode):
    """The operations above in fp32, where autocast is on."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in IN_FP32 and torch.is_autocast_enabled("cpu"):
            args = tree_map(_wide, args)
            kwargs = tree_map(_wide, kwargs)
        return function(*args, **kwargs)


def _wide(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x


@contextmanager
def bf16_mixed() -> Iterator[None]:
    with (
        patch.object(torch, "autocast", Autocast),
        patch.object(torch.amp, "autocast", Autocast),
        torch.autocast("cpu", dtype=torch.bfloat16),
        AsOnGpu(),
    ):
        yield
