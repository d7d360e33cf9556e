"""Transformers modulated by a single representation, with pair biases computed beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.kernels import conditioned
from foldcp.kernels.conditioned import ConditionedOps, Modulation, TransitionWeights
from foldcp.kernels.dispatch import Backend
from foldcp.model.layers.blocks import RunBlock, run_block
from foldcp.model.layers.layers import KernelModule, LayerNorm, Linear


@dataclass(frozen=True)
class FusedWeights:
    """Weights of one layer that meet the same input, stacked: one matrix product for all of
    them.
    """

    qkvg: Float[Tensor, "Q C"]  # query, key, value, gate; Q = 4 C
    qkvg_bias: Float[Tensor, " Q"]
    transition: TransitionWeights


@dataclass(frozen=True)
class LayerModulation:
    """Modulation of one layer's halves, the same for every sample, and its stacked weights."""

    attention: Modulation
    transition: Modulation
    weights: FusedWeights


@dataclass(frozen=True)
class Modulator:
    """The weights that turn the single representation into the modulations of all layers, stacked:
    two matrix products.

    The norms before scale and shift differ in their weights only, which move into the matrix.
    """

    norm_weight: Float[Tensor, "K S"]  # per layer: scale, shift, scale, shift
    norm_bias: Float[Tensor, " K"]
    raw_weight: Float[Tensor, "G S"]  # per layer: gate, gate
    raw_bias: Float[Tensor, " G"]
    dim: int
    layers: list[FusedWeights]

    def __call__(self, s: Float[Tensor, "*B S"]) -> list[LayerModulation]:
        precise = s.to(torch.promote_types(s.dtype, torch.float32))
        norm = F.layer_norm(precise, s.shape[-1:]).to(self.norm_weight.dtype)
        scale_shift = F.linear(norm, self.norm_weight, self.norm_bias)
        scale_shift = scale_shift.unflatten(-1, (-1, 2, 2, self.dim))  # layer, half, scale or shift
        raw = s.to(self.raw_weight.dtype)
        gate = F.linear(raw, self.raw_weight, self.raw_bias)
        gate = gate.unflatten(-1, (-1, 2, self.dim))  # layer, half

        def modulation(layer: int, half: int) -> Modulation:
            return Modulation(
                scale=scale_shift[..., layer, half, 0, :],
                shift=scale_shift[..., layer, half, 1, :],
                gate=gate[..., layer, half, :],
            )

        return [
            LayerModulation(modulation(layer, half=0), modulation(layer, half=1), weights)
            for layer, weights in enumerate(self.layers)
        ]


@dataclass(frozen=True)
class HalfLayer:
    """An attention or a transition with its modulation: what `update` makes of the modulated norm,
    in `dtype`, is gated and added to the residual.
    """

    modulation: Modulation
    dtype: torch.dtype
    update: Callable[[Float[Tensor, "M A C"]], Float[Tensor, "M A C"]]


def add_half_layers(
    a: Float[Tensor, "M A C"], halves: Sequence[HalfLayer], ops: ConditionedOps
) -> Float[Tensor, "M A C"]:
    """a + the updates of these half layers, each of what those before it have made."""
    first = halves[0]
    x = ops.modulated_norm(a, first.modulation.scale, first.modulation.shift, first.dtype)
    for half, following in pairwise(halves):
        gate = half.modulation.gate
        scale = following.modulation.scale
        shift = following.modulation.shift
        a, x = ops.add_gated_and_norm(a, half.update(x), gate, scale, shift, following.dtype)
    last = halves[-1]
    return ops.add_gated(a, last.update(x), last.modulation.gate)


class AdaLN(nn.Module):
    """The parameters of AlphaFold 3's algorithm 26; a `Modulator` applies them."""

    def __init__(self, dim: int, cond_dim: int) -> None:
        super().__init__()
        self.s_norm = LayerNorm(cond_dim, bias=False)
        self.s_scale = Linear(cond_dim, dim, bias=True)
        self.s_bias = Linear(cond_dim, dim)

    def norm_weight(self) -> Float[Tensor, "K S"]:
        """The weights of scale and shift, applied to a norm without weights."""
        weight = torch.cat([self.s_scale.weight, self.s_bias.weight])
        return (weight * self.s_norm.weight).to(weight.dtype)

    def norm_bias(self) -> Float[Tensor, " K"]:
        """The biases of scale and shift; a shift has none."""
        bias = self.s_scale.bias
        return torch.cat([bias, torch.zeros_like(bias)])


class ConditionedTransition(KernelModule):
    """AlphaFold 3, algorithm 25.

    `in_one_pass` it is a single operation with what ends the attention before it, and has its
    weights in fp16.
    """

    in_one_pass = False

    def __init__(self, dim: int, cond_dim: int) -> None:
        super().__init__()
        self.adaln = AdaLN(dim, cond_dim)
        self.swish_gate = nn.Sequential(Linear(dim, 4 * dim))
        self.a_to_b = Linear(dim, 2 * dim)
        self.b_to_a = Linear(2 * dim, dim)
        self.output_projection = nn.Sequential(Linear(cond_dim, dim, bias=True), nn.Sigmoid())
        self.use_kernels(Backend())

    def use_kernels(self, backend: Backend) -> None:
        channels, _ = self.b_to_a.weight.shape
        self.ops = conditioned.choose(backend, self.b_to_a.weight.dtype)
        self.add_transition = conditioned.choose_transition(backend, channels)

    def stacked(self) -> TransitionWeights:
        """The weights into the hidden channels, and back."""
        swish_gate = self.swish_gate[0].weight
        assert isinstance(swish_gate, Tensor)
        up_proj = torch.cat([swish_gate, self.a_to_b.weight])
        down_proj = self.b_to_a.weight
        if self.in_one_pass:
            return TransitionWeights(up_proj.half(), down_proj.half())
        return TransitionWeights(up_proj, down_proj)

    def half_layer(self, modulation: Modulation, weights: TransitionWeights) -> HalfLayer:
        """The transition, to be added to the residual."""

        def update(x: Float[Tensor, "M A C"]) -> Float[Tensor, "M A C"]:
            return F.linear(self.ops.glu_linear(x, weights.up_proj), weights.down_proj)

        return HalfLayer(modulation, weights.up_proj.dtype, update)


@runtime_checkable
class Attend(Protocol):
    """The attention of one layer, with its pair bias, times sigmoid(gate)."""

    def __call__(
        self,
        q: Float[Tensor, "M A H D"],
        kv: Float[Tensor, "M A 2 H D"],
        gate: Float[Tensor, "M A H D"],
    ) -> Float[Tensor, "M A H D"]: ...


class ConditionedAttention(KernelModule):
    """The projections around an attention, and its residual."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.proj_q = Linear(dim, dim, bias=True)
        self.proj_k = Linear(dim, dim)
        self.proj_v = Linear(dim, dim)
        self.proj_g = Linear(dim, dim)
        self.proj_o = Linear(dim, dim)
        self.use_kernels(Backend())

    def use_kernels(self, backend: Backend) -> None:
        self.ops = conditioned.choose(backend, self.proj_q.weight.dtype)

    def half_layer(
        self, modulation: Modulation, weights: FusedWeights, attend: Attend
    ) -> HalfLayer:
        """The attention, to be added to the residual."""

        def update(x: Float[Tensor, "M A C"]) -> Float[Tensor, "M A C"]:
            C = x.shape[-1]
            qkvg = F.linear(x, weights.qkvg, weights.qkvg_bias)
            q, kv, gate = qkvg.split([C, 2 * C, C], -1)
            q, gate = (part.unflatten(-1, (self.num_heads, -1)) for part in (q, gate))
            kv = kv.unflatten(-1, (2, self.num_heads, -1))
            return self.proj_o(attend(q, kv, gate).flatten(-2))

        return HalfLayer(modulation, weights.qkvg.dtype, update)


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

    def stacked(self, qkvg_dtype: torch.dtype | None = None) -> FusedWeights:
        """The stacked weights, made once for many calls; those of the attention in `qkvg_dtype`."""
        attention = self.pair_bias_attn
        qkvg = [attention.proj_q, attention.proj_k, attention.proj_v, attention.proj_g]
        bias = attention.proj_q.bias
        dtype = qkvg_dtype or bias.dtype
        return FusedWeights(
            qkvg=torch.cat([linear.weight for linear in qkvg]).to(dtype),
            qkvg_bias=torch.cat([bias, *[torch.zeros_like(bias)] * 3]).to(dtype),
            transition=self.transition.stacked(),
        )

    def forward(
        self, a: Float[Tensor, "M A C"], modulation: LayerModulation, attend: Attend
    ) -> Float[Tensor, "M A C"]:
        attention, transition = self.half_layers(modulation, attend)
        if not self.transition.in_one_pass:
            return add_half_layers(a, [attention, transition], self.ops)
        before, after = modulation.attention, modulation.transition
        x = self.ops.modulated_norm(a, before.scale, before.shift, attention.dtype)
        weights = modulation.weights.transition
        return self.transition.add_transition(a, attention.update(x), before.gate, after, weights)

    def half_layers(
        self, modulation: LayerModulation, attend: Attend
    ) -> tuple[HalfLayer, HalfLayer]:
        """Attention and transition."""
        weights = modulation.weights
        return (
            self.pair_bias_attn.half_layer(modulation.attention, weights, attend),
            self.transition.half_layer(modulation.transition, weights.transition),
        )

    @property
    def ops(self) -> ConditionedOps:
        """Of the residual."""
        return self.pair_bias_attn.ops


class DiffusionTransformer(nn.Module):
    """AlphaFold 3, algorithm 23."""

    def __init__(self, dim: int, cond_dim: int, num_blocks: int, num_heads: int) -> None:
        super().__init__()
        self.dim = dim
        self.num_heads = num_heads
        self.layers = nn.ModuleList(
            DiffusionLayer(dim, cond_dim, num_heads) for _ in range(num_blocks)
        )

    @property
    def dtype(self) -> torch.dtype:
        """The type in which it computes."""
        return self._layers()[0].pair_bias_attn.proj_q.weight.dtype

    def modulator(self, qkvg_dtype: torch.dtype | None = None) -> Modulator:
        """The stacked weights, made once for many steps; queries, keys, values and gates of the
        attention are made in `qkvg_dtype`.
        """
        return self._modulator(self._layers(), qkvg_dtype)

    def _modulator(
        self, layers: list[DiffusionLayer], qkvg_dtype: torch.dtype | None = None
    ) -> Modulator:
        norms = [norm for layer in layers for norm in (layer.adaln, layer.transition.adaln)]
        gates = []
        for layer in layers:
            gates += [
                layer.output_projection_linear,
                layer.transition.output_projection[0],
            ]
        return Modulator(
            norm_weight=torch.cat([norm.norm_weight() for norm in norms]),
            norm_bias=torch.cat([norm.norm_bias() for norm in norms]),
            raw_weight=torch.cat([linear.weight for linear in gates]),
            raw_bias=torch.cat([linear.bias for linear in gates]),
            dim=self.dim,
            layers=[layer.stacked(qkvg_dtype) for layer in layers],
        )

    def modulations(self, s: Float[Tensor, "*B S"]) -> list[LayerModulation]:
        """The modulations of all layers."""
        return self.modulator()(s)

    def forward(
        self,
        a: Float[Tensor, "M A C"],
        modulations: Sequence[LayerModulation],
        attention: Sequence[Attend],
        run: RunBlock = run_block,
    ) -> Float[Tensor, "M A C"]:
        """All layers, each with its modulation and attention. The residual keeps the type of `a`.
        In training, `run` runs each layer.
        """
        layers = self._layers()
        inputs = zip(layers, modulations, attention, strict=True)
        if run is run_block and not layers[0].transition.in_one_pass:
            # All at once: what ends a layer and what begins the next are one operation.
            halves = [layer.half_layers(modulation, attend) for layer, modulation, attend in inputs]
            return add_half_layers(a, list(chain.from_iterable(halves)), layers[0].ops)
        for layer, modulation, attend in inputs:
            a = run(layer, a, modulation, attend)
        return a

    def train_forward(
        self,
        a: Float[Tensor, "M A C"],
        s: Float[Tensor, "M A S"],
        attention: Sequence[Attend],
        run: RunBlock,
    ) -> Float[Tensor, "M A C"]:
        """The same with a single representation for each sample, as each has its noise level; a
        layer makes its modulations itself, since those of all layers would take much memory.
        """

        def modulated(layer: DiffusionLayer, a: Tensor, s: Tensor, attend: Attend) -> Tensor:
            (modulation,) = self._modulator([layer])(s)
            return layer(a, modulation, attend)

        for layer, attend in zip(self._layers(), attention, strict=True):
            a = run(modulated, layer, a, s, attend)
        return a

    def _layers(self) -> list[DiffusionLayer]:
        return [layer for layer in self.layers if isinstance(layer, DiffusionLayer)]
