"""The operations of a conditioned transformer and their weights; the PyTorch reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.layer_norm import EPSILON


@dataclass(frozen=True)
class Modulation:
    """Conditioning of one half of a layer: its input is scaled and shifted, its output gated.

    Scale and gate are as they are before their sigmoids, which the operations compute.
    """

    scale: Float[Tensor, "*B C"]
    shift: Float[Tensor, "*B C"]
    gate: Float[Tensor, "*B C"]


@dataclass(frozen=True)
class TransitionWeights:
    """The gated network of a transition with K hidden channels.

    up_proj makes three factors of the hidden channels (H = 3 K), down_proj brings them back.
    """

    up_proj: Float[Tensor, "H C"]
    down_proj: Float[Tensor, "C K"]


class ConditionedOps:
    """Norms, gates, and additions to the residual, between the matrix products.

    `a` [.., A, C] may be many samples; what conditions it, [A, C], is the same for all of them; in
    training, which uses this reference, each sample may have its own, [.., A, C].
    """

    def modulated_norm(
        self,
        a: Float[Tensor, "*M A C"],
        scale: Float[Tensor, "*B A C"],
        shift: Float[Tensor, "*B A C"],
        dtype: torch.dtype,
    ) -> Float[Tensor, "*M A C"]:
        """sigmoid(scale) LayerNorm(a) + shift, in the type of the matrix product that follows.

        Source: AlphaFold 3, algorithm 26, line 3.
        """
        precise = torch.promote_types(a.dtype, torch.float32)
        normed = F.layer_norm(a.to(precise), a.shape[-1:], eps=EPSILON)
        return torch.addcmul(shift.to(precise), scale.to(precise).sigmoid(), normed).to(dtype)

    def add_gated(
        self,
        a: Float[Tensor, "*M A C"],
        update: Float[Tensor, "*M A C"],
        gate: Float[Tensor, "*B A C"],
    ) -> Float[Tensor, "*M A C"]:
        """a + sigmoid(gate) update, in the type of a.

        Source: AlphaFold 3, algorithm 24, line 13; algorithm 25, line 4.
        """
        return torch.addcmul(a, gate.to(a.dtype).sigmoid(), update.to(a.dtype))

    def add_gated_and_norm(
        self,
        a: Float[Tensor, "*M A C"],
        update: Float[Tensor, "*M A C"],
        gate: Float[Tensor, "*B A C"],
        scale: Float[Tensor, "*B A C"],
        shift: Float[Tensor, "*B A C"],
        dtype: torch.dtype,
    ) -> tuple[Float[Tensor, "*M A C"], Float[Tensor, "*M A C"]]:
        """`add_gated`, and the `modulated_norm` of its result."""
        a = self.add_gated(a, update, gate)
        return a, self.modulated_norm(a, scale, shift, dtype)

    def glu(self, h: Float[Tensor, "*M K"]) -> Float[Tensor, "*M K/3"]:
        """x silu(y) w of the three thirds x, y, w of h.

        Source: AlphaFold 3, algorithm 25, line 2, times Boltz-2's w.
        """
        x, y, w = h.chunk(3, -1)
        return F.silu(y) * x * w

    def glu_linear(
        self, x: Float[Tensor, "*M C"], up_proj: Float[Tensor, "H C"]
    ) -> Float[Tensor, "*M H/3"]:
        """`glu` of x up_proj^T."""
        return self.glu(F.linear(x, up_proj))


class AddTransition:
    """b + sigmoid(gate) down_proj glu(up_proj (sigmoid(scale) LayerNorm(b) + shift)), where b is
    a + sigmoid(update_gate) update: what follows the attention of a layer, for few channels in one
    pass over a, with weights in fp16.

    The kernels multiply them by fp16 and add up in fp32; here all is in the type of a. Source:
    AlphaFold 3, algorithm 25.
    """

    def __call__(
        self,
        a: Float[Tensor, "*M A C"],
        update: Float[Tensor, "*M A C"],
        update_gate: Float[Tensor, "*B A C"],
        modulation: Modulation,
        weights: TransitionWeights,
    ) -> Float[Tensor, "*M A C"]:
        ops = ConditionedOps()
        a = ops.add_gated(a, update, update_gate)
        up_proj = weights.up_proj.to(a.dtype)
        down_proj = weights.down_proj.to(a.dtype)
        x = ops.modulated_norm(a, modulation.scale, modulation.shift, a.dtype)
        return ops.add_gated(a, F.linear(ops.glu_linear(x, up_proj), down_proj), modulation.gate)
