"""Gated projection and gated output of a triangle multiplication on Hopper, in CUDA C++."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import residual_with_reference_backward, with_reference_backward
from foldcp.kernels.pair_passes import hopper
from foldcp.kernels.triangle_multiplication.reference import (
    AddGatedOutput,
    GatedOutputWeights,
    GatedProjection,
    GatedProjectionWeights,
)
from foldcp.kernels.triangle_multiplication.triton import (
    AddGatedOutputTriton,
    GatedProjectionTriton,
    add_gated_output,
    gated_projection,
)

STEP = 8  # pairs of 16 bytes, channels first


def can_project(weights: GatedProjectionWeights) -> bool:
    """Whether the kernel is made for these sizes."""
    num_out, channels = weights.p_in.shape
    return channels == hopper.WIDTH and num_out % 128 == 0 and num_out <= hopper.MAX_GATED


def can_add_output(weights: GatedOutputWeights) -> bool:
    """Whether the kernel is made for these sizes."""
    return tuple(weights.p_out.shape) == (hopper.WIDTH, hopper.WIDTH)


class GatedProjectionHopper(GatedProjectionTriton):
    """The gated projection in the kernel for Hopper."""

    def __call__(
        self,
        z: Float[Tensor, "I N C"],
        mask: Float[Tensor, " N"] | Float[Tensor, "I 1"],
        weights: GatedProjectionWeights,
    ) -> Float[Tensor, "K I N"]:
        # the weights of a chunk of channels are what the kernel was not chosen by
        fits = z[..., 0].numel() % STEP == 0 and hopper.can_read(z) and can_project(weights)
        kernel = hopper.gated_projection if fits else gated_projection
        return with_reference_backward(kernel, GatedProjection(), z, mask, weights)


class AddGatedOutputHopper(AddGatedOutputTriton):
    """The gated output in the kernel for Hopper."""

    def __call__(
        self,
        z: Float[Tensor, "I N C"],
        product: Float[Tensor, "K I N"],
        weights: GatedOutputWeights,
    ) -> Float[Tensor, "I N C"]:
        rows_adjacent = product.stride(1) == product.shape[2]
        of_lines = product.flatten(1) if rows_adjacent else product
        fits = (
            rows_adjacent
            and product.dtype == torch.bfloat16
            and of_lines.shape[1] % STEP == 0
            and hopper.can_read(z, of_lines)
        )
        kernel = hopper.add_gated_output if fits else add_gated_output
        return residual_with_reference_backward(kernel, AddGatedOutput(), z, product, weights)
