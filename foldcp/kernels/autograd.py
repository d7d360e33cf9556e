"""Gradients of kernels that only have a forward: those of their PyTorch reference, recomputed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# A tensor, or a frozen dataclass whose fields are tensors: the weights of an operation.
Argument = Any


def needs_no_grad(*tensors: Tensor) -> bool:
    """Whether no gradient of these tensors is wanted."""
    return not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))


def add_residual(z: Tensor, update: Tensor) -> Tensor:
    """z + update in the type of z; in place where gradients are disabled.

    Not where these two merely need none: a gradient of something else may need the former z.
    """
    return z + update.to(z.dtype) if torch.is_grad_enabled() else z.add_(update)


def with_reference_backward(
    kernel: Callable[..., Tensor], reference: Callable[..., Tensor], *args: Argument
) -> Tensor:
    """kernel(*args), with the gradient of reference(*args), which runs only when the gradient is
    asked for.
    """
    tensors = _flattened(args)
    if needs_no_grad(*tensors):
        return kernel(*args)
    # The graph keeps these functions. Had they the arguments, checkpointing could not free them.
    kinds = [type(arg) for arg in args]

    def of_tensors(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *tensors: function(*_unflattened(kinds, tensors))

    return _Recomputed.apply(of_tensors(kernel), of_tensors(reference), *tensors)


def residual_with_reference_backward(
    kernel: Callable[..., None],
    reference: Callable[..., Tensor],
    z: Tensor,
    *args: Argument,
) -> Tensor:
    """The z that kernel(z, *args, out) writes, with the gradient of reference(z, *args); in place
    where gradients are disabled.
    """
    keep_input = torch.is_grad_enabled()

    def run_kernel(z: Tensor, *args: Argument) -> Tensor:
        out = torch.empty_like(z) if keep_input else z
        kernel(z, *args, out)
        return out

    return with_reference_backward(run_kernel, reference, z, *args)


def _flattened(args: Sequence[Argument]) -> list[Tensor]:
    tensors: list[Tensor] = []
    for arg in args:
        if isinstance(arg, Tensor):
            tensors.append(arg)
        else:
            tensors += [getattr(arg, field.name) for field in fields(arg)]
    return tensors


def _unflattened(kinds: Sequence[type], tensors: Sequence[Tensor]) -> list[Argument]:
    """Arguments of these types, made of tensors."""
    remaining = iter(tensors)
    return [
        next(remaining)
        if issubclass(kind, Tensor)
        else kind(*(next(remaining) for _ in fields(kind)))
        for kind in kinds
    ]


class _Recomputed(torch.autograd.Function):
    """kernel(*tensors), with the gradient of reference(*tensors)."""

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
        needs_grad = ctx.needs_input_grad[2:]
        leaves = [
            x.detach().requires_grad_(needed)
            for x, needed in zip(ctx.saved_tensors, needs_grad, strict=True)
        ]
        with torch.enable_grad():
            out = ctx.reference(*leaves)
        inputs = [x for x in leaves if x.requires_grad]
        gradients = iter(torch.autograd.grad(out, inputs, gradient))
        return None, None, *(next(gradients) if needed else None for needed in needs_grad)
