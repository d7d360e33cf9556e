"""The MSA module: what the alignment tells about pairs of tokens. A rank holds the alignment
columns of its tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.config import NUM_RES_TYPES, Architecture
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.kernels.projections import (
    add_attention_output,
    project,
    project_channels_first,
)
from foldcp.kernels.residual import cat_parts, fits
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.model.layers.layers import LayerNorm, Linear, Transition
from foldcp.model.layers.offload import offload
from foldcp.model.trunk.pairformer import MASKED, PairBlock


class PairWeightedAveraging(nn.Module):
    """m_is += gate * proj_o(sum_j softmax_j(proj_z z_ij) proj_m m_js): AlphaFold 3, algorithm
    10.
    """

    def __init__(
        self,
        msa_dim: int,
        pair_dim: int,
        num_heads: int,
        head_width: int,
        cp: ContextParallel,
        budget: ChunkBudget,
    ) -> None:
        super().__init__()
        self.cp = cp
        self.budget = budget
        self.num_heads = num_heads
        self.norm_m = LayerNorm(msa_dim)
        self.norm_z = LayerNorm(pair_dim)
        self.proj_m = Linear(msa_dim, num_heads * head_width)
        self.proj_g = Linear(msa_dim, num_heads * head_width)
        self.proj_z = Linear(pair_dim, num_heads)
        self.proj_o = Linear(num_heads * head_width, msa_dim)

    def forward(
        self,
        m: Float[Tensor, "I S C"],
        z: Float[Tensor, "I N Z"],
        mask: Float[Tensor, " N"],
    ) -> Float[Tensor, "I S C"]:
        weights = self._weights(z, mask)
        norm = (self.norm_m.weight, self.norm_m.bias)
        (I, depth, C) = m.shape
        inner = self.proj_m.out_features
        out = torch.empty_like(m) if torch.is_grad_enabled() else m
        # A slice of the alignment's rows at a time: they do not see each other.
        per_row = I * (
            5 * inner * self.proj_m.weight.element_size()
            + (0 if fits(m, self.proj_m.weight) else 8 * C)
        )
        for seqs in self.budget.chunks(depth, per_row, m.device):
            o = self._average(weights, project(m[:, seqs], *norm, self.proj_m.weight))
            new = add_attention_output(m[:, seqs], o, *norm, self.proj_g.weight, self.proj_o.weight)
            if out is not m:
                out[:, seqs] = new
        return out

    def _weights(
        self, z: Float[Tensor, "I N Z"], mask: Float[Tensor, " N"]
    ) -> Float[Tensor, "H I N"]:
        I, N, C = z.shape
        weights = z.new_empty((self.num_heads, I, N), dtype=self.proj_z.weight.dtype)
        fused = fits(z, self.proj_z.weight)
        for rows in self.budget.chunks(
            I, N * ((0 if fused else 2 * C) + 3 * self.num_heads) * 4, z.device
        ):
            scores = project_channels_first(
                z[rows], self.norm_z.weight, self.norm_z.bias, self.proj_z.weight
            )
            scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) + MASKED * (
                1 - mask
            )
            weights[:, rows] = scores.softmax(-1).to(weights.dtype)
        return weights

    def _average(
        self, weights: Float[Tensor, "H I N"], v: Float[Tensor, "I S D"]
    ) -> Float[Tensor, "I S D"]:
        """sum_j weights[h, i, j] v[j], added up in fp32 over the ranks' blocks."""
        I, depth, _ = v.shape
        by_head = v.unflatten(-1, (self.num_heads, -1)).permute(2, 0, 1, 3).flatten(2).contiguous()
        precise = torch.promote_types(v.dtype, torch.float32)
        total: list[Tensor] = []  # of some heads each
        for heads, owner, block in self.cp.pipelined_all_gather(by_head):
            product = torch.bmm(weights[heads, :, owner * I : (owner + 1) * I], block)
            if owner == self.cp.rank:  # it comes first
                total.append(product)
            else:
                total[-1] = total[-1].to(precise) + product
        return (
            cat_parts(total).to(v.dtype).unflatten(-1, (depth, -1)).permute(1, 2, 0, 3).flatten(2)
        )


class OuterProductMean(nn.Module):
    """z_ij += proj_o(mean_s a_is (x) b_js): AlphaFold 3, algorithm 9."""

    def __init__(
        self, msa_dim: int, hidden: int, pair_dim: int, cp: ContextParallel, budget: ChunkBudget
    ) -> None:
        super().__init__()
        self.cp = cp
        self.budget = budget
        self.hidden = hidden
        self.norm = LayerNorm(msa_dim)
        self.proj_a = Linear(msa_dim, hidden)
        self.proj_b = Linear(msa_dim, hidden)
        self.proj_o = Linear(hidden * hidden, pair_dim, bias=True)

    def forward(
        self,
        z: Float[Tensor, "I N Z"],
        m: Float[Tensor, "I S C"],
        msa_mask: Float[Tensor, "I S"],
    ) -> Float[Tensor, "I N Z"]:
        I = z.shape[0]
        D = self.hidden
        a, b = self._operands(m, msa_mask)
        out = torch.empty_like(z) if torch.is_grad_enabled() else z
        masks = self.cp.all_gather(msa_mask)
        for lot, owner, block in self.cp.pipelined_all_gather(b.transpose(0, 1)):
            columns = slice(owner * I + lot.start, owner * I + lot.stop)
            block = block.flatten(0, 1)
            for rows in self.budget.chunks(
                I, (lot.stop - lot.start) * (3 * D * D + 2 * z.shape[2]) * 4, z.device
            ):
                count = (msa_mask[rows] @ masks[columns].T).clamp(min=1)[..., None]
                outer = (
                    (a[:, rows].flatten(0, 1) @ block.T).unflatten(0, (D, -1)).unflatten(2, (-1, D))
                )
                update = F.linear(outer.permute(1, 2, 0, 3).flatten(2), self.proj_o.weight) / count
                out[rows, columns] = z[rows, columns] + (update + self.proj_o.bias)
        return out

    def _operands(
        self, m: Float[Tensor, "I S C"], msa_mask: Float[Tensor, "I S"]
    ) -> tuple[Float[Tensor, "D I S"], Float[Tensor, "D I S"]]:
        weight = torch.cat([self.proj_a.weight, self.proj_b.weight])
        both = m.new_empty((len(weight), *m.shape[:2]), dtype=weight.dtype)
        per_row = m.shape[1] * (2 * m.shape[2] + 4 * self.hidden) * 4
        for rows in self.budget.chunks(len(m), 0 if fits(m, weight) else per_row, m.device):
            projected = project_channels_first(m[rows], self.norm.weight, self.norm.bias, weight)
            both[:, rows] = projected * msa_mask[rows].to(weight.dtype)
        a, b = both.chunk(2)
        return a, b


class MSALayer(nn.Module):
    def __init__(
        self, architecture: Architecture, cp: ContextParallel, budget: ChunkBudget
    ) -> None:
        super().__init__()
        a = architecture
        self.budget = budget
        self.msa_transition = Transition(a.msa_s, 4 * a.msa_s)
        self.pair_weighted_averaging = PairWeightedAveraging(
            a.msa_s, a.token_z, a.averaging_heads, a.averaging_head_width, cp, budget
        )
        self.pairformer_layer = PairBlock(a.token_z, a.pair_heads, a.pair_head_width, cp, budget)
        self.outer_product_mean = OuterProductMean(
            a.msa_s, a.outer_product_width, a.token_z, cp, budget
        )

    def forward(
        self,
        z: Float[Tensor, "I N Z"],
        m: Float[Tensor, "I S C"],
        mask: Float[Tensor, " N"],
        msa_mask: Float[Tensor, "I S"],
    ) -> tuple[Float[Tensor, "I N Z"], Float[Tensor, "I S C"]]:
        m = self.pair_weighted_averaging(m, z, mask)
        m = self.msa_transition.add_to(m, self.budget)
        z = self.outer_product_mean(z, m, msa_mask)
        return self.pairformer_layer(z, mask), m


class MSAModule(nn.Module):
    """z + the output of the MSA stack, which itself starts from z: AlphaFold 3, algorithm 8."""

    def __init__(
        self, architecture: Architecture, cp: ContextParallel, budget: ChunkBudget
    ) -> None:
        super().__init__()
        self.cp = cp
        self.budget = budget
        self.s_proj = Linear(architecture.token_s, architecture.msa_s)
        self.msa_proj = Linear(NUM_RES_TYPES + 3, architecture.msa_s)
        self.layers = nn.ModuleList(
            MSALayer(architecture, cp, budget) for _ in range(architecture.msa_blocks)
        )

    def forward(
        self,
        z: Float[Tensor, "I N Z"],
        s_inputs: Float[Tensor, "I C"],
        features: Features,
        chosen: list[int] | None = None,
    ) -> Float[Tensor, "I N Z"]:
        """`chosen` are the alignment rows to use, all of them when None."""
        m = self._embed(s_inputs, features, chosen, z.dtype)
        msa_mask = self._columns(features.msa_mask, chosen).to(
            torch.promote_types(z.dtype, torch.float32)
        )
        before = offload(z, self.budget.rows_per_chunk(z[0].nbytes, z.device))
        for layer in self.layers:
            z, m = layer(z, m, features.token_mask, msa_mask)
        out = torch.empty_like(z) if torch.is_grad_enabled() else z
        for rows, piece in before:
            out[rows] = z[rows] + piece.to(z.device)
        return out

    def _columns(self, x: Tensor, chosen: list[int] | None) -> Tensor:
        """[S, N] -> this rank's tokens, [I, S]."""
        x = self.cp.shard(x, 1)
        return (x if chosen is None else x[chosen]).T

    def _embed(
        self,
        s_inputs: Float[Tensor, "I C"],
        features: Features,
        chosen: list[int] | None,
        dtype: torch.dtype,
    ) -> Float[Tensor, "I S D"]:
        res_type = self._columns(features.msa, chosen)
        extra = [
            self._columns(x, chosen).to(s_inputs.dtype)
            for x in (features.has_deletion, features.deletion_value, features.paired)
        ]
        by_type, by_extra = self.msa_proj.weight.T.split([NUM_RES_TYPES, 3])
        token = self.s_proj(s_inputs)
        m = token.new_empty((*res_type.shape, token.shape[1]), dtype=dtype)
        for rows in self.budget.chunks(len(m), m.shape[1] * m.shape[2] * 16, m.device):
            numbers = torch.stack([x[rows] for x in extra], -1).to(by_extra.dtype)
            m[rows] = (
                F.embedding(res_type[rows].long(), by_type) + numbers @ by_extra + token[rows, None]
            ).to(dtype)
        return m
