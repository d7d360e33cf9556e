"""The MSA module: what the alignment tells about pairs of tokens. A rank holds the alignment
columns of its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.config import NUM_RES_TYPES, Architecture
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.kernels import outer_product, projection
from foldcp.kernels.blocks import cat_blocks
from foldcp.kernels.dispatch import Backend
from foldcp.kernels.outer_product import OuterProductWeights
from foldcp.kernels.projection import AttentionOutputWeights, ProjectionWeights
from foldcp.model.layers.blocks import RunBlock, add_update, run_block
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.model.layers.layers import KernelModule, LayerNorm, Linear, Transition
from foldcp.model.layers.offload import offload
from foldcp.model.trunk.pairformer import PairBlock
from foldcp.progress import OnSteps, no_steps

MASKED = -1e6  # added to the score of a padding key, as Boltz does


class PairWeightedAveraging(KernelModule):
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
        self.use_kernels(Backend())

    def use_kernels(self, backend: Backend) -> None:
        self.value_projection = projection.choose(backend, self._value_weights())
        self.score_projection = projection.choose(backend, self._score_weights())
        self.add_output = projection.choose_output(backend, self._output_weights())

    def forward(
        self,
        m: Float[Tensor, "I S C"],
        z: Float[Tensor, "I N Z"],
        mask: Float[Tensor, " N"],
    ) -> Float[Tensor, "I S C"]:
        averaging = self._averaging_weights(z, mask)
        value_weights = self._value_weights()
        output_weights = self._output_weights()
        I, num_sequences, _ = m.shape
        out = torch.empty_like(m) if torch.is_grad_enabled() else m
        # A few sequences at a time: they do not see each other. Each has its values, in two
        # layouts, their average, a gate and the update.
        inner = self.proj_m.out_features
        bytes_per_sequence = self.value_projection.bytes_per_row(I, value_weights)
        bytes_per_sequence += I * 5 * inner * self.proj_m.weight.element_size()
        for sequences in self.budget.chunks(num_sequences, bytes_per_sequence, m.device):
            chunk = m[:, sequences]
            v = self.value_projection.heads_first(chunk, value_weights, self.num_heads)
            average = self._average(averaging, v)
            new = self.add_output.heads_first(chunk, average, output_weights)
            if out is not m:
                out[:, sequences] = new
        return out

    def _averaging_weights(
        self, z: Float[Tensor, "I N Z"], mask: Float[Tensor, " N"]
    ) -> Float[Tensor, "H I N"]:
        """softmax_j(proj_z z_ij), zero where j is padding."""
        I, N, _ = z.shape
        weights = self._score_weights()
        averaging = z.new_empty((self.num_heads, I, N), dtype=self.proj_z.weight.dtype)
        bytes_per_row = self.score_projection.bytes_per_row(N, weights)
        bytes_per_row += N * 3 * self.num_heads * 4  # scores, masked, and their softmax
        for rows in self.budget.chunks(I, bytes_per_row, z.device):
            scores = self.score_projection.channels_first(z[rows], weights)
            precise = torch.promote_types(scores.dtype, torch.float32)
            scores = scores.to(precise) + MASKED * (1 - mask)
            averaging[:, rows] = scores.softmax(-1).to(averaging.dtype)
        return averaging

    def _average(
        self, averaging: Float[Tensor, "H I N"], v: Float[Tensor, "H I S D"]
    ) -> Float[Tensor, "H I S D"]:
        """sum_j averaging[h, i, j] v[h, j], added up in fp32 over the ranks' blocks."""
        _, I, num_sequences, _ = v.shape
        precise = torch.promote_types(v.dtype, torch.float32)
        averages: list[Tensor] = []  # of a chunk of heads each
        total: Tensor | None = None
        for heads, owner, block in self.cp.pipelined_all_gather(v.flatten(2)):
            columns = slice(owner * I, (owner + 1) * I)
            product = torch.bmm(averaging[heads, :, columns], block)
            total = product if total is None else total.to(precise) + product
            if owner == (self.cp.rank - 1) % self.cp.size:  # the last one
                averages.append(total.to(v.dtype))
                total = None
        return cat_blocks(averages).unflatten(-1, (num_sequences, -1))

    def _value_weights(self) -> ProjectionWeights:
        return ProjectionWeights(self.norm_m.weight, self.norm_m.bias, self.proj_m.weight)

    def _score_weights(self) -> ProjectionWeights:
        return ProjectionWeights(self.norm_z.weight, self.norm_z.bias, self.proj_z.weight)

    def _output_weights(self) -> AttentionOutputWeights:
        return AttentionOutputWeights(
            norm_weight=self.norm_m.weight,
            norm_bias=self.norm_m.bias,
            gate=self.proj_g.weight,
            out=self.proj_o.weight,
        )


class OuterProductMean(KernelModule):
    """z_ij += proj_o(mean_s a_is (x) b_js): AlphaFold 3, algorithm 9."""

    def __init__(
        self,
        msa_dim: int,
        hidden: int,
        pair_dim: int,
        cp: ContextParallel,
        budget: ChunkBudget,
    ) -> None:
        super().__init__()
        self.cp = cp
        self.budget = budget
        self.hidden = hidden
        self.norm = LayerNorm(msa_dim)
        self.proj_a = Linear(msa_dim, hidden)
        self.proj_b = Linear(msa_dim, hidden)
        self.proj_o = Linear(hidden * hidden, pair_dim, bias=True)
        self.use_kernels(Backend())

    def use_kernels(self, backend: Backend) -> None:
        self.projection = projection.choose(backend, self._weights())
        self.add_outer_products = outer_product.choose(backend, self._output_weights(), self.hidden)

    def forward(
        self,
        z: Float[Tensor, "I N Z"],
        m: Float[Tensor, "I S C"],
        msa_mask: Float[Tensor, "I S"],
    ) -> Float[Tensor, "I N Z"]:
        I = len(z)
        weights = self._output_weights()
        a, b = self._operands(m, msa_mask)
        out = torch.empty_like(z) if torch.is_grad_enabled() else z
        masks = self.cp.all_gather(msa_mask)
        for chunk, owner, block in self.cp.pipelined_all_gather(b.transpose(0, 1)):
            columns = slice(owner * I + chunk.start, owner * I + chunk.stop)
            J = chunk.stop - chunk.start
            bytes_per_row = J * self.hidden**2 * block.element_size()
            bytes_per_row += self.add_outer_products.bytes_per_row(J, weights)
            for rows in self.budget.chunks(I, bytes_per_row, z.device):
                outer = self._outer_products(a[:, rows], block)
                count = (msa_mask[rows] @ masks[columns].T).clamp(min=1)
                new = self.add_outer_products(z[rows, columns], outer, count, weights)
                if out is not z:
                    out[rows, columns] = new
        return out

    def _outer_products(
        self, a: Float[Tensor, "D R S"], b: Float[Tensor, "J D S"]
    ) -> Float[Tensor, "D R J D"]:
        """sum_s a_is (x) b_js."""
        outer = a.flatten(0, 1) @ b.flatten(0, 1).T
        return outer.unflatten(0, (self.hidden, -1)).unflatten(2, (-1, self.hidden))

    def _operands(
        self, m: Float[Tensor, "I S C"], msa_mask: Float[Tensor, "I S"]
    ) -> tuple[Float[Tensor, "D I S"], Float[Tensor, "D I S"]]:
        weights = self._weights()
        dtype = weights.weight.dtype
        I, num_sequences, _ = m.shape
        both = m.new_empty((2 * self.hidden, I, num_sequences), dtype=dtype)
        bytes_per_row = self.projection.bytes_per_row(num_sequences, weights, with_outputs=True)
        for rows in self.budget.chunks(I, bytes_per_row, m.device):
            projected = self.projection.channels_first(m[rows], weights)
            both[:, rows] = projected * msa_mask[rows].to(dtype)
        a, b = both.chunk(2)
        return a, b

    def _weights(self) -> ProjectionWeights:
        stacked = torch.cat([self.proj_a.weight, self.proj_b.weight])
        return ProjectionWeights(self.norm.weight, self.norm.bias, stacked)

    def _output_weights(self) -> OuterProductWeights:
        return OuterProductWeights(self.proj_o.weight, self.proj_o.bias)


@dataclass(frozen=True)
class MSAScales:
    """What dropout multiplies the updates of an MSA layer by in training."""

    of_sequences: Float[Tensor, " S"] | None  # one number an MSA row
    of_pairs: Float[Tensor, "4 N"] | None


NO_SCALES = MSAScales(None, None)


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
        scales: MSAScales = NO_SCALES,
    ) -> tuple[Float[Tensor, "I N Z"], Float[Tensor, "I S C"]]:
        m = add_update(
            lambda m, mask: self.pair_weighted_averaging(m, z, mask), m, mask, scales.of_sequences
        )
        m = self.msa_transition.add_to(m, self.budget)
        z = self.outer_product_mean(z, m, msa_mask)
        return self.pairformer_layer(z, mask, scales.of_pairs), m


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
        msa_rows: list[int] | None = None,
        scales: Sequence[MSAScales] = (),
        run: RunBlock = run_block,
        on_steps: OnSteps = no_steps,
    ) -> Float[Tensor, "I N Z"]:
        """`msa_rows` are the rows of the MSA to use, all of them when None. In training, with
        dropout, one set of scales a layer; `run` runs each layer, and `on_steps` is called after
        it.
        """
        m = self._embed(s_inputs, features, msa_rows, z.dtype)
        precise = torch.promote_types(z.dtype, torch.float32)
        msa_mask = self._columns(features.msa_mask, msa_rows).to(precise)
        initial = offload(z, self.budget.rows_per_chunk(z[0].nbytes, z.device))
        for layer, of_layer in zip_longest(self.layers, scales, fillvalue=NO_SCALES):
            z, m = run(layer, z, m, features.token_mask, msa_mask, of_layer)
            on_steps(1)
        out = torch.empty_like(z) if torch.is_grad_enabled() else z
        for rows, chunk in initial:
            out[rows] = z[rows] + chunk.to(z.device)
        return out

    def _columns(self, x: Tensor, msa_rows: list[int] | None) -> Tensor:
        """[S, N] -> this rank's tokens, [I, S]."""
        x = self.cp.shard(x, 1)
        return (x if msa_rows is None else x[msa_rows]).T

    def _embed(
        self,
        s_inputs: Float[Tensor, "I C"],
        features: Features,
        msa_rows: list[int] | None,
        dtype: torch.dtype,
    ) -> Float[Tensor, "I S D"]:
        res_type = self._columns(features.msa, msa_rows)
        scalars = [
            self._columns(x, msa_rows).to(s_inputs.dtype)
            for x in (features.has_deletion, features.deletion_value, features.paired)
        ]
        type_weight, scalar_weight = self.msa_proj.weight.T.split([NUM_RES_TYPES, 3])
        token = self.s_proj(s_inputs)
        m = token.new_empty((*res_type.shape, token.shape[1]), dtype=dtype)
        _, num_sequences, channels = m.shape
        bytes_per_row = num_sequences * channels * 16
        for rows in self.budget.chunks(len(m), bytes_per_row, m.device):
            values = torch.stack([x[rows] for x in scalars], -1).to(scalar_weight.dtype)
            of_type = F.embedding(res_type[rows].long(), type_weight)
            m[rows] = of_type + values @ scalar_weight + token[rows, None]
        return m
