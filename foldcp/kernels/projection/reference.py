"""Projections of a normalised array and the output of attention, with their weights; the PyTorch
reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import add_residual
from foldcp.kernels.blocks import cat_blocks
from foldcp.kernels.layer_norm import layer_norm

QKV = tuple[Float[Tensor, "R N H D"], Float[Tensor, "R N H D"], Float[Tensor, "R N H D"]]


@dataclass(frozen=True)
class ProjectionWeights:
    """A matrix (several, stacked, for one read of what they project) and the LayerNorm before
    it.
    """

    norm_weight: Float[Tensor, " C"]
    norm_bias: Float[Tensor, " C"]
    weight: Float[Tensor, "K C"]


@dataclass(frozen=True)
class AttentionOutputWeights:
    """The gate of attention, with the LayerNorm before it, and the output matrix."""

    norm_weight: Float[Tensor, " C"]
    norm_bias: Float[Tensor, " C"]
    gate: Float[Tensor, "K C"]
    out: Float[Tensor, "C K"]


class Projection:
    """weight LayerNorm(z), in the type of weight. Source: AlphaFold 3, algorithm 14, lines 1 to
    3.
    """

    def __call__(
        self, z: Float[Tensor, "*B C"], weights: ProjectionWeights
    ) -> Float[Tensor, "*B K"]:
        """With the channels last."""
        w = weights
        return F.linear(layer_norm(z, w.norm_weight, w.norm_bias).to(w.weight.dtype), w.weight)

    def channels_first(
        self, z: Float[Tensor, "I N C"], weights: ProjectionWeights
    ) -> Float[Tensor, "K I N"]:
        """With the channels first, as the biases of attention want it: one N-long line per channel
        and row.
        """
        return Projection.__call__(self, z, weights).movedim(-1, 0).contiguous()

    def heads_first(
        self, z: Float[Tensor, "*B C"], weights: ProjectionWeights, num_heads: int
    ) -> Float[Tensor, "H *B D"]:
        """With the heads first, whose channels are K / H rows of the matrix each."""
        projected = Projection.__call__(self, z, weights)
        return projected.unflatten(-1, (num_heads, -1)).movedim(-2, 0).contiguous()

    def qkv(
        self,
        blocks: list[Float[Tensor, "R J C"]],
        weights: ProjectionWeights,
        num_heads: int,
    ) -> QKV:
        """q, k and v of attention, whose matrices are stacked, for rows of z that come in blocks, N
        columns in all.

        Kernels give them in fp16, as those of attention take them, where no gradient is wanted.
        """
        stacked = self(cat_blocks(blocks, 1), weights)
        q, k, v = stacked.unflatten(-1, (3, num_heads, -1)).unbind(-3)
        return q, k, v

    def bytes_per_row(self, N: int, weights: ProjectionWeights, with_outputs: bool = False) -> int:
        """Bytes of the intermediates of a row of N pairs: z normalised, in fp32 and in the type of
        the product, and what is projected where it has many channels.
        """
        num_out, channels = weights.weight.shape
        width = channels + num_out if with_outputs else channels
        return N * 2 * width * 4


class AddAttentionOutput:
    """z + out (attended * sigmoid(gate LayerNorm(z))); in place where gradients are disabled.

    `attended` is what attention gave, its heads side by side. Source: AlphaFold 3, algorithm 14,
    lines 4 to 7, and the residual of algorithm 17.
    """

    def __call__(
        self,
        z: Float[Tensor, "*B C"],
        attended: Float[Tensor, "*B K"],
        weights: AttentionOutputWeights,
    ) -> Float[Tensor, "*B C"]:
        w = weights
        x = layer_norm(z, w.norm_weight, w.norm_bias).to(w.gate.dtype)
        gate = F.linear(x, w.gate).sigmoid()
        return add_residual(z, F.linear(attended.to(w.out.dtype) * gate, w.out))

    def heads_first(
        self,
        z: Float[Tensor, "*B C"],
        attended: Float[Tensor, "H *B D"],
        weights: AttentionOutputWeights,
    ) -> Float[Tensor, "*B C"]:
        """The same where `attended` has its heads first."""
        side_by_side = attended.movedim(0, -2).flatten(-2)
        return AddAttentionOutput.__call__(self, z, side_by_side, weights)
