"""The pairformer: blocks that refine the pair representation and, with it, the single
representation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.config import Architecture
from foldcp.distributed.context_parallel import ContextParallel, split_range
from foldcp.kernels.residual import fits
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.model.layers.cuda_graph import CUDAGraphWrapper, can_capture, new_pool
from foldcp.model.layers.layers import LayerNorm, Linear, NormLinear, Transition
from foldcp.model.trunk.triangle import TriangleAttention, TriangleMultiplication

MASKED = -1e6  # added to the score of a padding key, as Boltz does

# Above this, the launches of a layer take less time than its work, and a recording's memory counts.
MOST_TOKENS = 1024
LAYERS_AT_ONCE = 4  # in a recording


class PairBlock(nn.Module):
    """The five updates of z; no single representation."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_width: int,
        cp: ContextParallel,
        budget: ChunkBudget,
    ) -> None:
        super().__init__()
        self.budget = budget
        self.tri_mul_out = TriangleMultiplication(dim, cp, budget, incoming=False)
        self.tri_mul_in = TriangleMultiplication(dim, cp, budget, incoming=True)
        self.tri_att_start = TriangleAttention(dim, num_heads, head_width, cp, budget, ending=False)
        self.tri_att_end = TriangleAttention(dim, num_heads, head_width, cp, budget, ending=True)
        self.transition_z = Transition(dim, 4 * dim)

    def forward(
        self, z: Float[Tensor, "I N C"], mask: Float[Tensor, " N"]
    ) -> Float[Tensor, "I N C"]:
        z = self.tri_mul_out(z, mask)
        z = self.tri_mul_in(z, mask)
        z = self.tri_att_start(z, mask)
        z = self.tri_att_end(z, mask)
        return self.transition_z.add_to(z, self.budget)


class AttentionPairBias(nn.Module):
    """Tokens attend to tokens, biased by the pair representation: AlphaFold 3, algorithm 24
    without conditioning.
    """

    def __init__(
        self, dim: int, pair_dim: int, num_heads: int, cp: ContextParallel, budget: ChunkBudget
    ) -> None:
        super().__init__()
        self.cp = cp
        self.budget = budget
        self.num_heads = num_heads
        self.proj_q = Linear(dim, dim, bias=True)
        self.proj_k = Linear(dim, dim)
        self.proj_v = Linear(dim, dim)
        self.proj_g = Linear(dim, dim)
        self.proj_z = NormLinear(pair_dim, num_heads)
        self.proj_o = Linear(dim, dim)

    def forward(
        self,
        s: Float[Tensor, "I C"],
        z: Float[Tensor, "I N Z"],
        mask: Float[Tensor, " N"],
    ) -> Float[Tensor, "I C"]:
        q, kv, gate = self._projected(s)
        q, k, v = (
            x.unflatten(-1, (self.num_heads, -1)).transpose(0, 1)
            for x in (q, *self.cp.all_gather(kv).chunk(2, -1))
        )
        o = torch.empty_like(q)
        wide = 0 if fits(z, self.proj_z.linear.weight) else 2 * z.shape[2]
        for rows in self.budget.chunks(
            z.shape[0], z.shape[1] * (wide + 3 * self.num_heads) * 4, z.device
        ):
            bias = self.proj_z.channels_first(z[rows]) + MASKED * (1 - mask.to(q.dtype))
            o[:, rows] = F.scaled_dot_product_attention(
                q[None, :, rows], k[None], v[None], attn_mask=bias[None]
            )[0]
        return self.proj_o(o.transpose(0, 1).flatten(1) * gate.sigmoid())

    def _projected(
        self, s: Float[Tensor, "I C"]
    ) -> tuple[Float[Tensor, "I C"], Float[Tensor, "I 2*C"], Float[Tensor, "I C"]]:
        """q, k beside v, and the gate before its sigmoid, from one product: for small complexes
        launches count.
        """
        weight = torch.cat(
            [layer.weight for layer in (self.proj_q, self.proj_k, self.proj_v, self.proj_g)]
        )
        C = s.shape[-1]
        q, kv, gate = F.linear(s.to(weight.dtype), weight).split([C, 2 * C, C], -1)
        return q + self.proj_q.bias, kv, gate


class PairformerLayer(PairBlock):
    """A pair block, then attention and a transition on s with the new z as bias. s is fp32
    throughout, as in Boltz.
    """

    def __init__(
        self, architecture: Architecture, num_heads: int, cp: ContextParallel, budget: ChunkBudget
    ) -> None:
        a = architecture
        super().__init__(a.token_z, a.pair_heads, a.pair_head_width, cp, budget)
        self.pre_norm_s = LayerNorm(a.token_s)
        self.attention = AttentionPairBias(a.token_s, a.token_z, num_heads, cp, budget)
        self.transition_s = Transition(a.token_s, 4 * a.token_s)

    def update(
        self,
        s: Float[Tensor, "I C"],
        z: Float[Tensor, "I N Z"],
        mask: Float[Tensor, " N"],
    ) -> tuple[Float[Tensor, "I C"], Float[Tensor, "I N Z"]]:
        z = self(z, mask)
        s = s + self.attention(self.pre_norm_s(s), z, mask)
        return s + self.transition_s(s), z


PairformerFn = Callable[
    [Tensor, Tensor], tuple[Tensor, Tensor]
]  # s and z -> the same, refined; z in place
Lot = CUDAGraphWrapper[tuple[Tensor, Tensor]]  # some layers


class Pairformer(nn.Module):
    """A stack of layers on s and z."""

    def __init__(
        self,
        architecture: Architecture,
        num_blocks: int,
        num_heads: int,
        cp: ContextParallel,
        budget: ChunkBudget,
    ) -> None:
        super().__init__()
        self.cp = cp
        self.layers = nn.ModuleList(
            PairformerLayer(architecture, num_heads, cp, budget) for _ in range(num_blocks)
        )
        self.recorded: tuple[list[int], list[Lot]] | None = (
            None  # for which sizes and weights, and what
        )

    def forward(
        self,
        s: Float[Tensor, "I C"],
        z: Float[Tensor, "I N Z"],
        mask: Float[Tensor, " N"],
    ) -> tuple[Float[Tensor, "I C"], Float[Tensor, "I N Z"]]:
        z, s = _refined(self.layers, z, s, mask)
        return s, z

    def repeated(self, mask: Float[Tensor, " N"], times: int) -> PairformerFn:
        """The stack under this mask, for several calls: of a small complex the first is recorded,
        some layers at a time, each lot while the one before runs, and the rest are replays, as is
        all of the next complex if it has as many tokens. s, and z as it is returned, then live
        until the next call.
        """
        if self.cp.size == 1 and len(mask) <= MOST_TOKENS and can_capture(mask.device):
            of = [len(mask), *(weight.data_ptr() for weight in self.parameters())]
            if self.recorded is None or self.recorded[0] != of:
                self.recorded = (of, self._lots()) if times > 1 else None
        else:
            self.recorded = None
        if self.recorded is None:
            return lambda s, z: self(s, z, mask)
        _, lots = self.recorded

        def refine(s: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            for lot in lots:
                z, s = lot(z, s, mask)
            return s, z

        return refine

    def _lots(self) -> list[Lot]:
        pool = new_pool()
        first, *others = self.layers  # the first compiles what the others need
        return [
            CUDAGraphWrapper(partial(_refined, [first]), pool, updated=1),
            *(
                CUDAGraphWrapper(partial(_refined, others[lot]), pool, updated=1, at_once=True)
                for lot in split_range(len(others), LAYERS_AT_ONCE)
            ),
        ]


def _refined(
    layers: Iterable[nn.Module],
    z: Float[Tensor, "I N Z"],
    s: Float[Tensor, "I C"],
    mask: Float[Tensor, " N"],
) -> tuple[Float[Tensor, "I N Z"], Float[Tensor, "I C"]]:
    for layer in layers:
        assert isinstance(layer, PairformerLayer)
        s, z = layer.update(s, z, mask)
    return z, s


class PairStack(nn.Module):
    """A stack of pair blocks on z alone."""

    def __init__(
        self,
        dim: int,
        num_blocks: int,
        num_heads: int,
        head_width: int,
        cp: ContextParallel,
        budget: ChunkBudget,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            PairBlock(dim, num_heads, head_width, cp, budget) for _ in range(num_blocks)
        )

    def forward(
        self, z: Float[Tensor, "I N C"], mask: Float[Tensor, " N"]
    ) -> Float[Tensor, "I N C"]:
        for layer in self.layers:
            z = layer(z, mask)
        return z
