"""How does a kernel that only knows the way forward get a gradient? Through its torch reference,
recomputed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from foldcp.kernels.residual import needs_no_grad


def with_reference_backward(
    kernel: Callable[..., Tensor], reference: Callable[..., Tensor], *tensors: Tensor
) -> Tensor:
    """kernel(*tensors), with the gradient of reference(*tensors), which runs only when the
    gradient is asked for.
    """
    if needs_no_grad(*tensors):
        return kernel(*tensors)
    return _Recomputed.apply(kernel, reference, *tensors)


def residual_with_reference_backward(
    kernel: Callable[..., None],
    reference: Callable[..., Tensor],
    z: Tensor,
    *tensors: Tensor,
) -> Tensor:
    """The same for a kernel(z, *tensors, out) that updates z; in place where no gradient is
    wanted.
    """
    keep = not needs_no_grad(z, *tensors)

    def updated(z: Tensor, *tensors: Tensor) -> Tensor:
        out = torch.empty_like(z) if keep else z
        kernel(z, *tensors, out)
        return out

    return with_reference_backward(updated, reference, z, *tensors)


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: Callable[..., Tensor],
        reference: Callable[..., Tensor],
        *tensors: Tensor,
    ) -> Tensor:
        ctx.reference = reference
        ctx.save_for_backward(*tensors)
        return kernel(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[2:]
        leaves = [
            x.detach().requires_grad_(w) for x, w in zip(ctx.saved_tensors, wanted, strict=True)
        ]
        with torch.enable_grad():
            out = ctx.reference(*leaves)
        asked = [x for x in leaves if x.requires_grad]
        found = iter(torch.autograd.grad(out, asked, gradient))
        return None, None, *(next(found) if w else None for w in wanted)
