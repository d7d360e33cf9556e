"""The small layers that everything is made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.kernels import projection, tf32_linear, transition
from foldcp.kernels.dispatch import Backend
from foldcp.kernels.layer_norm import EPSILON, layer_norm
from foldcp.kernels.projection import ProjectionWeights
from foldcp.kernels.tf32_linear import LinearOps
from foldcp.kernels.transition import TransitionWeights
from foldcp.model.layers.chunking import ChunkBudget, map_rows_


class KernelModule(nn.Module):
    """A layer that computes with operations of `foldcp.kernels`; the PyTorch reference at first."""

    def use_kernels(self, backend: Backend) -> None:
        """Store the implementations of its operations, for its weights as they are now."""
        raise NotImplementedError


def set_backend(module: nn.Module, backend: Backend) -> None:
    """Choose the kernels of all layers of `module`; after `set_compute_dtype`, on its device."""
    for part in module.modules():
        if isinstance(part, KernelModule):
            part.use_kernels(backend)


class Linear(nn.Linear):
    """y = x W^T + b, in the type of the weights, without initialisation: weights come from
    elsewhere.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias)

    def reset_parameters(self) -> None:
        """No initialisation: `foldcp.checkpoint.load` fills the weights."""

    def forward(self, x: Float[Tensor, "*S in"]) -> Float[Tensor, "*S out"]:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class Embedding(nn.Embedding):
    """An embedding without initialisation: weights come from elsewhere."""

    def reset_parameters(self) -> None:
        """No initialisation: `foldcp.checkpoint.load` fills the weights."""


class LayerNorm(KernelModule, nn.LayerNorm):
    """LayerNorm over the last dimension with statistics in fp32 (or better); the result has type
    `out_dtype`, or that of the statistics.
    """

    out_dtype: torch.dtype | None = None

    def __init__(self, dim: int, bias: bool = True) -> None:
        super().__init__(dim, eps=EPSILON, bias=bias)
        self.use_kernels(Backend())

    def use_kernels(self, backend: Backend) -> None:
        self.fused = bool(backend.triton)

    def forward(self, x: Float[Tensor, "*S C"]) -> Float[Tensor, "*S C"]:
        y = layer_norm(x, self.weight, self.bias, self.fused)
        return y if self.out_dtype is None else y.to(self.out_dtype)


class NormLinear(KernelModule):
    """A LayerNorm and the Linear after it, named 0 and 1 as in the checkpoint."""

    def __init__(self, dim: int, out_features: int) -> None:
        super().__init__()
        self.add_module("0", LayerNorm(dim))
        self.add_module("1", Linear(dim, out_features))
        self.use_kernels(Backend())

    def use_kernels(self, backend: Backend) -> None:
        self.projection = projection.choose(backend, self._weights())

    @property
    def norm(self) -> LayerNorm:
        norm = self.get_submodule("0")
        assert isinstance(norm, LayerNorm)
        return norm

    @property
    def linear(self) -> Linear:
        linear = self.get_submodule("1")
        assert isinstance(linear, Linear)
        return linear

    def forward(self, x: Float[Tensor, "*S C"]) -> Float[Tensor, "*S K"]:
        return self.linear(self.norm(x))

    def channels_first(self, z: Float[Tensor, "R N C"]) -> Float[Tensor, "K R N"]:
        """The projection with its channels first, the layout of a bias of attention."""
        return self.projection.channels_first(z, self._weights())

    def bytes_per_row(self, N: int) -> int:
        """Bytes of the intermediates of `channels_first` for a row of N pairs."""
        return self.projection.bytes_per_row(N, self._weights())

    def _weights(self) -> ProjectionWeights:
        norm = self.norm
        return ProjectionWeights(norm.weight, norm.bias, self.linear.weight)


def set_compute_dtype(module: nn.Module, dtype: torch.dtype) -> None:
    """Compute the matrix products of `module` in `dtype`: its Linear weights are converted, its
    LayerNorms return `dtype`.
    """
    for part in module.modules():
        if isinstance(part, Linear):
            part.to(dtype)
        elif isinstance(part, LayerNorm):
            part.out_dtype = dtype


class Transition(KernelModule):
    """fc3(silu(fc1(norm x)) * fc2(norm x)): AlphaFold 3, algorithm 11.

    `tf32` lets products be in TF32 where weights are fp32 and gradients disabled.
    """

    tf32 = False

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = LayerNorm(dim)
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(dim, hidden)
        self.fc3 = Linear(hidden, dim)
        self.use_kernels(Backend())

    def use_kernels(self, backend: Backend) -> None:
        self.add_transition = transition.choose(backend, self._weights())
        self.linear_ops = tf32_linear.choose(backend, self.tf32)

    def forward(self, x: Float[Tensor, "*S C"]) -> Float[Tensor, "*S C"]:
        ops = LinearOps() if torch.is_grad_enabled() else self.linear_ops
        hidden = ops.swiglu(self.norm(x), self.fc1.weight, self.fc2.weight)
        return ops.linear(hidden, [self.fc3.weight])

    def add_to(self, x: Float[Tensor, "I *S C"], budget: ChunkBudget) -> Float[Tensor, "I *S C"]:
        """x + transition(x), a few rows at a time."""
        weights = self._weights()
        N = x[0].numel() // x.shape[-1]
        bytes_per_row = self.add_transition.bytes_per_row(N, weights)
        return map_rows_(
            x, lambda rows: self.add_transition(x[rows], weights), bytes_per_row, budget
        )

    def _weights(self) -> TransitionWeights:
        return TransitionWeights(
            norm_weight=self.norm.weight,
            norm_bias=self.norm.bias,
            fc1=self.fc1.weight,
            fc2=self.fc2.weight,
            fc3=self.fc3.weight,
        )


class FourierEmbedding(nn.Module):
    """cos(2 pi (w t + b)) with fixed random w, b: AlphaFold 3, algorithm 22."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = Linear(1, dim, bias=True)

    def forward(self, t: Float[Tensor, "*K"]) -> Float[Tensor, "*K C"]:
        return torch.cos(2 * torch.pi * self.proj(t[..., None]))
