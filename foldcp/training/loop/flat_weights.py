"""Trained weights and their gradients as two vectors in fp32, whatever the network computes in.

A vector is reduced, clipped and updated by a few operations on all weights, and cut into shares, of
which each rank keeps the state of the optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.distributed.mesh import Mesh

ALIGNMENT = 64  # elements; a weight begins at a multiple of 256 bytes, as kernels want it


class FlatWeights:
    """The trained weights of a network: fp32 parameters are views of the vector, others are copies
    in their own type, which `publish` makes anew.

    n is a multiple of the number of ranks; between weights and behind them are zeros.
    """

    def __init__(self, groups: Sequence[Mapping[str, nn.Parameter]], mesh: Mesh) -> None:
        """One vector for several groups of parameters by name, one behind the other."""
        self.parameters = {name: p for group in groups for name, p in group.items()}
        self.offsets: dict[str, int] = {}
        self.group_ends: list[int] = []
        end = 0
        for group in groups:
            for name, p in group.items():
                self.offsets[name] = end
                end += -(-p.numel() // ALIGNMENT) * ALIGNMENT
            self.group_ends.append(end)
        length = end + -end % (mesh.size * ALIGNMENT)
        self.weights = torch.zeros(length, device=mesh.device)
        self.gradients = torch.zeros_like(self.weights)
        self._gradients = self.by_name(self.gradients)
        self._weights = self.by_name(self.weights)
        for name, p in self.parameters.items():
            self._weights[name].copy_(p.data)

    def by_name(self, flat: Float[Tensor, " n"]) -> dict[str, Tensor]:
        """The parts of a vector, in the shapes of the weights; views."""
        return {
            name: flat[offset : offset + prod(p.shape)].view(p.shape)
            for (name, offset), p in zip(
                self.offsets.items(), self.parameters.values(), strict=True
            )
        }

    @torch.no_grad()
    def attach(self) -> None:
        """Make fp32 parameters, and their gradients, views of the vectors; call it when the
        parameters have their final types.
        """
        for name, p in self.parameters.items():
            if p.dtype == torch.float32:
                p.data = self._weights[name]
                p.grad = self._gradients[name]

    @torch.no_grad()
    def collect_gradients(self) -> None:
        """Add gradients of other types to those in fp32; call it after each backward pass."""
        for name, p in self.parameters.items():
            if p.dtype != torch.float32 and p.grad is not None:
                self._gradients[name].add_(p.grad)
                p.grad = None

    def clear_gradients(self) -> None:
        """Set the gradients to zero."""
        self.gradients.zero_()

    @torch.no_grad()
    def publish(self) -> None:
        """Give the parameters of other types the weights, rounded; call it after each step."""
        for name, p in self.parameters.items():
            if p.dtype != torch.float32:
                p.copy_(self._weights[name])
