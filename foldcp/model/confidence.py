"""The confidence module: logits of pLDDT, resolvedness, PAE and PDE of a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.config import Architecture
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.geometry import distances
from foldcp.model.layers.blocks import RunBlock
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.model.layers.layers import Embedding, LayerNorm, Linear
from foldcp.model.trunk.pair_embedder import PairEmbedding
from foldcp.model.trunk.pairformer import Pairformer, PairformerFn
from foldcp.progress import OnSteps, no_steps

# Å
NUM_DISTANCE_BINS = 64
MAX_DISTANCE = 22.0

# start of the rows among all N, their PAE logits and their PDE logits
OnLogits = Callable[[int, Tensor, Tensor], None]


class ConfidenceHeads(nn.Module):
    """Logits of pLDDT, resolvedness, PAE and PDE; pairs within and between chains have weights
    of their own.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        self.to_pae_intra_logits = Linear(a.token_z, a.num_pae_bins)
        self.to_pae_inter_logits = Linear(a.token_z, a.num_pae_bins)
        self.to_pde_intra_logits = Linear(a.token_z, a.num_pde_bins)
        self.to_pde_inter_logits = Linear(a.token_z, a.num_pde_bins)
        self.to_plddt_logits = Linear(a.token_s, a.num_plddt_bins)
        self.to_resolved_logits = Linear(a.token_s, 2)

    def pae_logits(self, z: Float[Tensor, "R N Z"], same_chain: Tensor) -> Float[Tensor, "R N B"]:
        return torch.where(
            same_chain[..., None],
            self.to_pae_intra_logits(z),
            self.to_pae_inter_logits(z),
        )

    def pde_logits(
        self, symmetric: Float[Tensor, "R N Z"], same_chain: Tensor
    ) -> Float[Tensor, "R N B"]:
        """PDE logits of pairs, from z + z^T."""
        return torch.where(
            same_chain[..., None],
            self.to_pde_intra_logits(symmetric),
            self.to_pde_inter_logits(symmetric),
        )


class ConfidenceModule(nn.Module):
    """AlphaFold 3, algorithm 31, with Boltz-2's inputs."""

    boundaries: Tensor

    def __init__(
        self, architecture: Architecture, cp: ContextParallel, budget: ChunkBudget
    ) -> None:
        super().__init__()
        a = architecture
        self.cp = cp
        self.budget = budget
        self.embed_pairs = PairEmbedding(a)
        self.embed_pairs.register(self)
        self.register_buffer("boundaries", torch.linspace(2, MAX_DISTANCE, NUM_DISTANCE_BINS - 1))
        self.dist_bin_pairwise_embed = Embedding(NUM_DISTANCE_BINS, a.token_z)
        self.s_to_z = Linear(a.token_s, a.token_z)
        self.s_to_z_transpose = Linear(a.token_s, a.token_z)
        self.s_to_z_prod_in1 = Linear(a.token_s, a.token_z)
        self.s_to_z_prod_in2 = Linear(a.token_s, a.token_z)
        self.s_to_z_prod_out = Linear(a.token_z, a.token_z)
        self.s_inputs_norm = LayerNorm(a.token_s)
        self.s_norm = LayerNorm(a.token_s)
        self.z_norm = LayerNorm(a.token_z)
        self.s_input_to_s = Linear(a.token_s, a.token_s)
        self.pairformer_stack = Pairformer(a, a.confidence_blocks, a.confidence_heads, cp, budget)
        self.confidence_heads = ConfidenceHeads(a)

    def forward(
        self,
        s_inputs: Float[Tensor, "N S"],
        s: Float[Tensor, "N S"],
        pairs: Float[Tensor, "I N Z"],
        coords: Float[Tensor, "A 3"],
        features: Features,
        on_logits: OnLogits,
        workspace: Float[Tensor, "I N Z"] | None = None,
        refine: PairformerFn | None = None,
        on_steps: OnSteps = no_steps,
    ) -> tuple[Float[Tensor, "N B"], Float[Tensor, "N 2"]]:
        """Logits of pLDDT and resolvedness of one sample; PAE and PDE logits go to `on_logits`, a
        chunk of rows at a time.

        `pairs` are the `initial_pairs` of all samples; `workspace` is memory to work in, which may
        be that of `pairs` if they are not needed afterwards; `refine` is the stack as
        `Pairformer.graphed` gives it, for several samples; `on_steps` is called after each of its
        blocks.
        """
        inputs = self.s_inputs_norm(s_inputs)
        single = self.cp.shard(self.s_norm(s) + self.s_input_to_s(inputs))
        workspace = torch.empty_like(pairs) if workspace is None else workspace
        pairs = self._add_distances(pairs, coords, features, workspace)
        refine = refine or self.pairformer_stack.graphed(features.token_mask, 1)
        single, pairs = refine(single, pairs, on_steps)
        self._emit_logits(pairs, features, on_logits)
        single = self.cp.all_gather(single)
        heads = self.confidence_heads
        return heads.to_plddt_logits(single), heads.to_resolved_logits(single)

    def train_forward(
        self,
        s_inputs: Float[Tensor, "N S"],
        s: Float[Tensor, "N S"],
        z: Float[Tensor, "I N Z"],
        coords: Float[Tensor, "A 3"],
        features: Features,
        scales: Sequence[Float[Tensor, "4 N"] | None],
        run: RunBlock,
    ) -> tuple[Float[Tensor, "I S"], Float[Tensor, "I N Z"]]:
        """What the heads read of one sample, with dropout; `run` runs each layer."""
        inputs = self.s_inputs_norm(s_inputs)
        single = self.cp.shard(self.s_norm(s) + self.s_input_to_s(inputs))

        def pairs_of_sample(s_inputs: Tensor, z: Tensor) -> Tensor:
            pairs = self.initial_pairs(s_inputs, z, features, torch.empty_like(z))
            return self._add_distances(pairs, coords, features, torch.empty_like(z))

        pairs = run(pairs_of_sample, s_inputs, z)
        return self.pairformer_stack.train_forward(single, pairs, features.token_mask, scales, run)

    def initial_pairs(
        self,
        s_inputs: Float[Tensor, "N S"],
        z: Float[Tensor, "I N Z"],
        features: Features,
        out: Float[Tensor, "I N Z"],
    ) -> Float[Tensor, "I N Z"]:
        """The pair representation that the stack starts from, but for the distances of a sample;
        written to `out`, which may be z.
        """
        I, N, C = z.shape
        first = self.cp.first_row(N)
        inputs = self.s_inputs_norm(s_inputs)
        of_i = self.s_to_z(inputs)
        of_j = self.s_to_z_transpose(inputs)
        factor_i = self.s_to_z_prod_in1(inputs)
        factor_j = self.s_to_z_prod_in2(inputs)
        for rows in self.budget.chunks(I, N * C * 24, z.device):
            global_rows = slice(first + rows.start, first + rows.stop)
            x = self.z_norm(z[rows]) + self.embed_pairs(features, global_rows)
            x = x + of_i[global_rows, None] + of_j
            out[rows] = x + self.s_to_z_prod_out(factor_i[global_rows, None] * factor_j)
        return out

    def _add_distances(
        self,
        pairs: Float[Tensor, "I N Z"],
        coords: Float[Tensor, "A 3"],
        features: Features,
        out: Float[Tensor, "I N Z"],
    ) -> Float[Tensor, "I N Z"]:
        """The pairs and the embedded distances of a sample, written to `out`."""
        I, N, C = pairs.shape
        first = self.cp.first_row(N)
        points = coords[features.rep_atom].to(self.boundaries.dtype)
        for rows in self.budget.chunks(I, N * C * 12, pairs.device):
            global_rows = slice(first + rows.start, first + rows.stop)
            distance = distances(points[global_rows], points)
            distance_bin = torch.bucketize(distance, self.boundaries)
            out[rows] = pairs[rows] + self.dist_bin_pairwise_embed(distance_bin)
        return out

    def _emit_logits(
        self, z: Float[Tensor, "I N Z"], features: Features, on_logits: OnLogits
    ) -> None:
        _, N, C = z.shape
        first = self.cp.first_row(N)
        heads = self.confidence_heads
        num_bins = heads.to_pae_intra_logits.out_features
        bytes_per_row = N * (2 * C + 5 * num_bins) * 4
        max_rows = self.budget.rows_per_chunk(bytes_per_row, z.device)
        for rows, transposed in self.cp.transposed_rows(z, max_rows):
            global_rows = slice(first + rows.start, first + rows.stop)
            same_chain = features.asym_id[global_rows, None] == features.asym_id
            pae = heads.pae_logits(z[rows], same_chain)
            pde = heads.pde_logits(z[rows] + transposed, same_chain)
            on_logits(global_rows.start, pae, pde)


def expected_plddt(logits: Float[Tensor, "N B"]) -> Float[Tensor, " N"]:
    """Expectation (0 .. 1) over bins of equal width."""
    num_bins = logits.shape[-1]
    centres = (torch.arange(num_bins, device=logits.device, dtype=logits.dtype) + 0.5) / num_bins
    return F.softmax(logits, -1) @ centres
