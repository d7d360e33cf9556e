"""Projections and the output of attention on Hopper, in CUDA C++."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import residual_with_reference_backward, with_reference_backward
from foldcp.kernels.pair_passes import hopper
from foldcp.kernels.projection.reference import (
    AddAttentionOutput,
    AttentionOutputWeights,
    Projection,
    ProjectionWeights,
)
from foldcp.kernels.projection.triton import (
    AddAttentionOutputTriton,
    ProjectionTriton,
    add_attention_output,
    launch_project,
)


def can_project(weights: ProjectionWeights) -> bool:
    """Whether one of the kernels is made for these sizes."""
    num_out, channels = weights.weight.shape
    if channels != hopper.WIDTH:
        return False
    return num_out <= hopper.FEW or (num_out % 128 == 0 and num_out <= hopper.MAX_PROJECTED)


def can_add_output(weights: AttentionOutputWeights) -> bool:
    """Whether the kernel is made for these sizes."""
    return tuple(weights.out.shape) == (hopper.WIDTH, hopper.WIDTH)


class ProjectionHopper(ProjectionTriton):
    """Projections whose q, k and v, or whose few channels, are made by kernels for Hopper."""

    def channels_first(
        self, z: Float[Tensor, "I N C"], weights: ProjectionWeights
    ) -> Float[Tensor, "K I N"]:
        if len(weights.weight) > hopper.FEW or not hopper.can_read(z):
            return super().channels_first(z, weights)
        reference = Projection().channels_first
        return with_reference_backward(hopper.project_few, reference, z, weights)

    def _project_into(
        self, z: Float[Tensor, "R J C"], weights: ProjectionWeights, out: Float[Tensor, "R J K"]
    ) -> None:
        if len(weights.weight) > hopper.FEW and hopper.can_read(z, out):
            hopper.project(z, weights, out)
        else:
            launch_project(z, weights, out)


class AddAttentionOutputHopper(AddAttentionOutputTriton):
    """The output of attention in the kernel for Hopper."""

    def __call__(
        self,
        z: Float[Tensor, "*B C"],
        attended: Float[Tensor, "*B K"],
        weights: AttentionOutputWeights,
    ) -> Float[Tensor, "*B C"]:
        fits = attended.dtype == torch.bfloat16 and hopper.can_read(z, attended)
        kernel = hopper.add_attention_output if fits else add_attention_output
        return residual_with_reference_backward(kernel, AddAttentionOutput(), z, attended, weights)
