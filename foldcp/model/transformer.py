"""Transformers conditioned by a single representation, whose pair bias was computed beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.model.layers import LayerNorm, Linear


class Modulation(NamedTuple):
    """How the conditioning scales, shifts and gates the two halves of one layer; the same for every sample."""

    attention_scale: Float[Tensor, "*B C"]
    attention_shift: Float[Tensor, "*B C"]
    attention_gate: Float[Tensor, "*B C"]
    transition_scale: Float[Tensor, "*B C"]
    transition_shift: Float[Tensor, "*B C"]
    transition_gate: Float[Tensor, "*B C"]


class Modulator(NamedTuple):
    """The weights that turn the conditioning into the modulations of all layers, stacked: two matrix products.

    The norms before scale and shift differ in their weights only, which move into the matrix.
    """

    of_norm: Float[Tensor, "K S"]  # per layer: scale, shift, scale, shift
    bias_of_norm: Float[Tensor, " K"]
    of_raw: Float[Tensor, "G S"]  # per layer: gate, gate
    bias_of_raw: Float[Tensor, " G"]
    dim: int

    def __call__(self, s: Float[Tensor, "*B S"]) -> list[Modulation]:
        precise = s.to(torch.promote_types(s.dtype, torch.float32))
        norm = F.layer_norm(precise, s.shape[-1:]).to(self.of_norm.dtype)
        scaled = F.linear(norm, self.of_norm, self.bias_of_norm).unflatten(-1, (-1, 4, self.dim))
        gate = (
            F.linear(s.to(self.of_raw.dtype), self.of_raw, self.bias_of_raw).sigmoid().unflatten(-1, (-1, 2, self.dim))
        )
        scale, shift = scaled[..., 0::2, :].sigmoid(), scaled[..., 1::2, :]
        return [
            Modulation(
                *(x[..., layer, half, :] for half in (0, 1) for x in (scale, shift, gate)),
            )
            for layer in range(gate.shape[-3])
        ]


class AdaLN(nn.Module):
    """AlphaFold 3, algorithm 26; scale and shift come from a `Modulator`."""

    def __init__(self, dim: int, cond_dim: int) -> None:
        super().__init__()
        self.a_norm = LayerNorm(dim, elementwise_affine=False)
        self.s_norm = LayerNorm(cond_dim, bias=False)
        self.s_scale = Linear(cond_dim, dim, bias=True)
        self.s_bias = Linear(cond_dim, dim)

    def of_norm(self) -> tuple[Tensor, Tensor]:
        """The weights and biases of scale and shift, applied to a norm without weights."""
        weight = torch.cat([self.s_scale.weight, self.s_bias.weight])
        bias = self.s_scale.bias
        return (weight * self.s_norm.weight).to(weight.dtype), torch.cat([bias, torch.zeros_like(bias)])

    def forward(self, a: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return torch.addcmul(shift, scale, self.a_norm(a))


class ConditionedTransition(nn.Module):
    """AlphaFold 3, algorithm 25."""

    def __init__(self, dim: int, cond_dim: int) -> None:
        super().__init__()
        self.adaln = AdaLN(dim, cond_dim)
        self.swish_gate = nn.Sequential(Linear(dim, 4 * dim))
        self.a_to_b = Linear(dim, 2 * dim)
        self.b_to_a = Linear(2 * dim, dim)
        self.output_projection = nn.Sequential(Linear(cond_dim, dim, bias=True), nn.Sigmoid())

    def forward(self, a: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        a = self.adaln(a, scale, shift)
        x, swish = self.swish_gate(a).chunk(2, -1)
        return self.b_to_a(F.silu(swish) * x * self.a_to_b(a))


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v [M, A, H, D] -> [M, A, H, D]


class ConditionedAttention(nn.Module):
    """The projections around an attention."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.proj_q = Linear(dim, dim, bias=True)
        self.proj_k = Linear(dim, dim)
        self.proj_v = Linear(dim, dim)
        self.proj_g = Linear(dim, dim)
        self.proj_o = Linear(dim, dim)

    def forward(self, a: Float[Tensor, "M A C"], attend: Attend) -> Float[Tensor, "M A C"]:
        q, k, v = (proj(a).unflatten(-1, (self.num_heads, -1)) for proj in (self.proj_q, self.proj_k, self.proj_v))
        return self.proj_o(attend(q, k, v).flatten(-2) * self.proj_g(a).sigmoid())


class DiffusionLayer(nn.Module):
    """AlphaFold 3, algorithm 23, one block."""

    def __init__(self, dim: int, cond_dim: int, num_heads: int) -> None:
        super().__init__()
        self.adaln = AdaLN(dim, cond_dim)
        self.pair_bias_attn = ConditionedAttention(dim, num_heads)
        # One layer under two names, as in the checkpoint.
        self.output_projection_linear = Linear(cond_dim, dim, bias=True)
        self.output_projection = nn.Sequential(self.output_projection_linear, nn.Sigmoid())
        self.transition = ConditionedTransition(dim, cond_dim)

    def forward(self, a: Float[Tensor, "M A C"], modulation: Modulation, attend: Attend) -> Float[Tensor, "M A C"]:
        m = modulation
        update = self.pair_bias_attn(self.adaln(a, m.attention_scale, m.attention_shift), attend)
        a = torch.addcmul(a, m.attention_gate.to(a.dtype), update.to(a.dtype))
        update = self.transition(a, m.transition_scale, m.transition_shift)
        return torch.addcmul(a, m.transition_gate.to(a.dtype), update.to(a.dtype))


class DiffusionTransformer(nn.Module):
    def __init__(self, dim: int, cond_dim: int, num_blocks: int, num_heads: int) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList(DiffusionLayer(dim, cond_dim, num_heads) for _ in range(num_blocks))

    @property
    def dtype(self) -> torch.dtype:
        """The type of its arithmetic."""
        return self.layers[0].pair_bias_attn.proj_q.weight.dtype  # type: ignore[union-attr, return-value]

    def modulator(self) -> Modulator:
        """The stacked weights; made once for many steps."""
        of_norm, of_raw = [], []
        for layer in self.layers:
            assert isinstance(layer, DiffusionLayer)
            of_norm += [layer.adaln.of_norm(), layer.transition.adaln.of_norm()]
            of_raw += [layer.output_projection_linear, layer.transition.output_projection[0]]
        return Modulator(
            torch.cat([weight for weight, _ in of_norm]),
            torch.cat([bias for _, bias in of_norm]),
            torch.cat([linear.weight for linear in of_raw]),
            torch.cat([linear.bias for linear in of_raw]),
            self.dim,
        )

    def modulations(self, s: Float[Tensor, "*B S"]) -> list[Modulation]:
        return self.modulator()(s)

    def forward(
        self, a: Float[Tensor, "M A C"], modulations: Sequence[Modulation], attend: Callable[..., Tensor]
    ) -> Float[Tensor, "M A C"]:
        """`attend(layer, q, k, v)` knows the pair bias of each layer. The residual keeps the type of `a`."""
        for index, (layer, modulation) in enumerate(zip(self.layers, modulations, strict=True)):
            a = layer(a, modulation, partial(attend, index))
        return a
