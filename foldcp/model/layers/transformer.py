"""Transformers conditioned by a single representation, whose pair bias was computed beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.kernels.conditioned import (
    add_gated,
    add_split_transition,
    gated,
    glu,
    modulated_norm,
    split,
)
from foldcp.model.layers.layers import LayerNorm, Linear


class FusedWeights(NamedTuple):
    """Weights of one layer that meet the same input, stacked: one matrix product for all of
    them.
    """

    into: Float[Tensor, "4C C"]  # query, key, value, gate
    into_bias: Float[Tensor, " 4C"]
    widen: Float[
        Tensor, "*2 6C C"
    ]  # the three factors of the transition; two matrices to be added if it is split
    back: Float[Tensor, "*2 C 2C"]


class Modulation(NamedTuple):
    """What one layer is given: how the conditioning scales, shifts and gates its two halves, the
    same for every sample, and its stacked weights.
    """

    attention_scale: Float[Tensor, "*B C"]
    attention_shift: Float[Tensor, "*B C"]
    attention_gate: Float[Tensor, "*B C"]
    transition_scale: Float[Tensor, "*B C"]
    transition_shift: Float[Tensor, "*B C"]
    transition_gate: Float[Tensor, "*B C"]
    weights: FusedWeights


class Modulator(NamedTuple):
    """The weights that turn the conditioning into the modulations of all layers, stacked: two
    matrix products.

    The norms before scale and shift differ in their weights only, which move into the matrix.
    """

    of_norm: Float[Tensor, "K S"]  # per layer: scale, shift, scale, shift
    bias_of_norm: Float[Tensor, " K"]
    of_raw: Float[Tensor, "G S"]  # per layer: gate, gate
    bias_of_raw: Float[Tensor, " G"]
    dim: int
    stacked: list[FusedWeights]

    def __call__(self, s: Float[Tensor, "*B S"]) -> list[Modulation]:
        precise = s.to(torch.promote_types(s.dtype, torch.float32))
        norm = F.layer_norm(precise, s.shape[-1:]).to(self.of_norm.dtype)
        scaled = F.linear(norm, self.of_norm, self.bias_of_norm).unflatten(-1, (-1, 4, self.dim))
        gate = (
            F.linear(s.to(self.of_raw.dtype), self.of_raw, self.bias_of_raw)
            .sigmoid()
            .unflatten(-1, (-1, 2, self.dim))
        )
        scale = scaled[..., 0::2, :].sigmoid()
        shift = scaled[..., 1::2, :]
        given = (scale, shift, gate)
        return [
            Modulation._make([*(x[..., layer, half, :] for half in (0, 1) for x in given), weights])
            for layer, weights in enumerate(self.stacked)
        ]


class AdaLN(nn.Module):
    """AlphaFold 3, algorithm 26; scale and shift come from a `Modulator`."""

    def __init__(self, dim: int, cond_dim: int) -> None:
        super().__init__()
        self.s_norm = LayerNorm(cond_dim, bias=False)
        self.s_scale = Linear(cond_dim, dim, bias=True)
        self.s_bias = Linear(cond_dim, dim)

    def of_norm(self) -> tuple[Tensor, Tensor]:
        """The weights and biases of scale and shift, applied to a norm without weights."""
        weight = torch.cat([self.s_scale.weight, self.s_bias.weight])
        bias = self.s_scale.bias
        return (weight * self.s_norm.weight).to(weight.dtype), torch.cat(
            [bias, torch.zeros_like(bias)]
        )


class ConditionedTransition(nn.Module):
    """AlphaFold 3, algorithm 25; `split` asks for fp32 weights in a GPU's fast arithmetic."""

    split = False

    def __init__(self, dim: int, cond_dim: int) -> None:
        super().__init__()
        self.adaln = AdaLN(dim, cond_dim)
        self.swish_gate = nn.Sequential(Linear(dim, 4 * dim))
        self.a_to_b = Linear(dim, 2 * dim)
        self.b_to_a = Linear(2 * dim, dim)
        self.output_projection = nn.Sequential(Linear(cond_dim, dim, bias=True), nn.Sigmoid())

    def stacked(self) -> tuple[Tensor, Tensor]:
        """The weights into the hidden channels, and back."""
        widen = torch.cat([self.swish_gate[0].weight, self.a_to_b.weight])  # type: ignore[list-item]
        return (
            (split(widen), split(self.b_to_a.weight)) if self.split else (widen, self.b_to_a.weight)
        )

    def add_to(self, a: Float[Tensor, "M A C"], m: Modulation) -> Float[Tensor, "M A C"]:
        (_, _, widen, back) = m.weights
        given = (m.transition_scale, m.transition_shift)
        if self.split:
            return add_split_transition(a, *given, m.transition_gate, widen, back)
        x = modulated_norm(a, *given, widen.dtype)
        return add_gated(a, F.linear(glu(F.linear(x, widen)), back), m.transition_gate)


Attend = Callable[
    [Tensor, Tensor], Tensor
]  # q [M, A, H, D], keys and values [M, A, 2, H, D] -> [M, A, H, D]


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

    def forward(
        self, a: Float[Tensor, "M A C"], weights: FusedWeights, attend: Attend
    ) -> Float[Tensor, "M A C"]:
        C = a.shape[-1]
        heads = self.num_heads
        q, kv, gate = F.linear(a, weights.into, weights.into_bias).split([C, 2 * C, C], -1)
        attended = attend(q.unflatten(-1, (heads, -1)), kv.unflatten(-1, (2, heads, -1)))
        return self.proj_o(gated(attended.flatten(-2), gate))


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

    def stacked(self) -> FusedWeights:
        """Made once for many calls."""
        attention = self.pair_bias_attn
        into = [attention.proj_q, attention.proj_k, attention.proj_v, attention.proj_g]
        bias = attention.proj_q.bias
        return FusedWeights(
            torch.cat([linear.weight for linear in into]),
            torch.cat([bias, *[torch.zeros_like(bias)] * 3]),
            *self.transition.stacked(),
        )

    def forward(
        self, a: Float[Tensor, "M A C"], m: Modulation, attend: Attend
    ) -> Float[Tensor, "M A C"]:
        x = modulated_norm(a, m.attention_scale, m.attention_shift, m.weights.into.dtype)
        a = add_gated(a, self.pair_bias_attn(x, m.weights, attend), m.attention_gate)
        return self.transition.add_to(a, m)


class DiffusionTransformer(nn.Module):
    def __init__(self, dim: int, cond_dim: int, num_blocks: int, num_heads: int) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList(
            DiffusionLayer(dim, cond_dim, num_heads) for _ in range(num_blocks)
        )

    @property
    def dtype(self) -> torch.dtype:
        """The type of its arithmetic."""
        return self.layers[0].pair_bias_attn.proj_q.weight.dtype  # type: ignore[union-attr, return-value]

    def modulator(self) -> Modulator:
        """The stacked weights; made once for many steps."""
        of_norm = []
        of_raw = []
        stacked = []
        for layer in self.layers:
            assert isinstance(layer, DiffusionLayer)
            of_norm += [layer.adaln.of_norm(), layer.transition.adaln.of_norm()]
            of_raw += [
                layer.output_projection_linear,
                layer.transition.output_projection[0],
            ]
            stacked.append(layer.stacked())
        return Modulator(
            torch.cat([weight for weight, _ in of_norm]),
            torch.cat([bias for _, bias in of_norm]),
            torch.cat([linear.weight for linear in of_raw]),
            torch.cat([linear.bias for linear in of_raw]),
            self.dim,
            stacked,
        )

    def modulations(self, s: Float[Tensor, "*B S"]) -> list[Modulation]:
        return self.modulator()(s)

    def forward(
        self,
        a: Float[Tensor, "M A C"],
        modulations: Sequence[Modulation],
        attend: Callable[..., Tensor],
    ) -> Float[Tensor, "M A C"]:
        """`attend(layer, q, kv)` knows the pair bias of each layer. The residual keeps the type
        of `a`.
        """
        for index, (layer, modulation) in enumerate(zip(self.layers, modulations, strict=True)):
            a = layer(a, modulation, partial(attend, index))
        return a
