"""The score network: where should each atom of a noisy structure go? And what it needs to be
told only once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.config import WINDOW_KEYS, WINDOW_QUERIES, Architecture
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.kernels.pair_bias_attention import (
    pair_bias_attention,
    prepare_bias,
    prepared_attention,
)
from foldcp.kernels.residual import fits
from foldcp.model.layers.atoms import (
    AtomAttentionDecoder,
    AtomAttentionEncoder,
    AtomEncoder,
    keys,
    queries,
)
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.model.layers.layers import (
    FourierEmbedding,
    LayerNorm,
    Linear,
    NormLinear,
    Transition,
)
from foldcp.model.layers.offload import available_bytes
from foldcp.model.layers.transformer import Attend, DiffusionTransformer, Modulation, Modulator
from foldcp.model.trunk.pair_embedder import RelativePosition


@dataclass(frozen=True)
class DiffusionConditioningOutput:
    """What the score network needs of the trunk; the same for every sample and step."""

    q: Float[Tensor, "A C"]
    c: Float[Tensor, "A C"]
    encoder_bias: Float[Tensor, "E K h 32 128"]
    decoder_bias: Float[Tensor, "D K h 32 128"]
    token_bias: Float[Tensor, "L H I N"] | LazyPairBias


@dataclass(frozen=True)
class LazyPairBias:
    """The token transformer's biases where memory does not hold them all: made for one layer
    whenever it runs.
    """

    pairs: Float[Tensor, "I N Z"]
    projections: nn.ModuleList
    budget: ChunkBudget

    def __getitem__(self, layer: int) -> Float[Tensor, "H I N"]:
        proj = self.projections[layer]
        assert isinstance(proj, NormLinear)
        linear = proj.linear
        bias = self.pairs.new_empty(
            (linear.out_features, *self.pairs.shape[:2]), dtype=linear.weight.dtype
        )
        fused = fits(self.pairs, linear.weight)
        for rows in self.budget.chunks(
            len(self.pairs),
            0 if fused else self.pairs[0].numel() * 12,
            self.pairs.device,
        ):
            bias[:, rows] = proj.channels_first(self.pairs[rows])
        return bias


class PairwiseConditioning(nn.Module):
    """AlphaFold 3, algorithm 21, lines 1 to 5."""

    def __init__(self, dim: int, num_transitions: int, budget: ChunkBudget) -> None:
        super().__init__()
        self.budget = budget
        self.dim_pairwise_init_proj = nn.Sequential(LayerNorm(2 * dim), Linear(2 * dim, dim))
        self.transitions = nn.ModuleList(Transition(dim, 2 * dim) for _ in range(num_transitions))

    def forward(
        self, z: Float[Tensor, "R N C"], relative: Float[Tensor, "R N C"]
    ) -> Float[Tensor, "R N C"]:
        z = self.dim_pairwise_init_proj(torch.cat([z, relative.to(z.dtype)], -1))
        for transition in self.transitions:
            assert isinstance(transition, Transition)
            z = transition.add_to(z, self.budget)
        return z


class DiffusionConditioning(nn.Module):
    """From the trunk's representations to the biases of every layer of the score network."""

    def __init__(
        self, architecture: Architecture, cp: ContextParallel, budget: ChunkBudget
    ) -> None:
        super().__init__()
        a = architecture
        self.cp = cp
        self.budget = budget
        self.heads = a.diffusion_heads
        self.pairwise_conditioner = PairwiseConditioning(
            a.token_z, a.conditioning_transitions, budget
        )
        self.atom_encoder = AtomEncoder(a, structure=True)
        self.atom_enc_proj_z = _projections(a.atom_encoder_blocks, a.atom_z, a.atom_heads)
        self.atom_dec_proj_z = _projections(a.atom_decoder_blocks, a.atom_z, a.atom_heads)
        self.token_trans_proj_z = _projections(
            a.token_transformer_blocks, a.token_z, a.diffusion_heads
        )

    def forward(
        self,
        s: Float[Tensor, "N S"],
        z: Float[Tensor, "I N Z"],
        rel_pos: RelativePosition,
        features: Features,
    ) -> DiffusionConditioningOutput:
        token_bias, from_tokens = self._of_pairs(z, rel_pos, features)
        q = self.atom_encoder.atoms(features)
        from_single = self.atom_encoder.s_to_c_trans(s).index_select(0, features.atom_token)
        c = q + from_single * features.atom_mask[:, None]
        p = self.atom_encoder.pairs(features, c, from_tokens)
        encoder, decoder = (
            torch.stack([proj(p).permute(0, 3, 1, 2) for proj in projections])
            for projections in (self.atom_enc_proj_z, self.atom_dec_proj_z)
        )
        return DiffusionConditioningOutput(q, c, encoder, decoder, token_bias)

    def _of_pairs(
        self, z: Float[Tensor, "I N Z"], rel_pos: RelativePosition, features: Features
    ) -> tuple[Float[Tensor, "L H I N"] | LazyPairBias, Float[Tensor, "K 32 128 Y"]]:
        """The token transformer's biases of this rank's rows, and the share of token pairs in
        pairs of atoms.
        """
        (I, N, C) = z.shape
        L = len(self.token_trans_proj_z)
        dtype = self.token_trans_proj_z[0][1].weight.dtype  # type: ignore[index]
        size = L * self.heads * I * N * dtype.itemsize
        kept = (
            z.new_empty((L, self.heads, I, N), dtype=dtype)
            if 3 * size < available_bytes(z.device)
            else None
        )
        pairs_kept = torch.empty_like(z) if kept is None else None
        of_mask = self.atom_encoder.embed_atompair_mask.weight  # atom_z x 1, in the type of atoms
        from_tokens = of_mask.new_zeros(
            (
                features.num_atoms // WINDOW_QUERIES,
                WINDOW_QUERIES,
                WINDOW_KEYS,
                of_mask.shape[0],
            )
        )
        first = self.cp.first_row(N)
        for rows in self.budget.chunks(I, N * (8 * C + L * self.heads) * 4, z.device):
            whole = slice(first + rows.start, first + rows.stop)
            pairs = self.pairwise_conditioner(z[rows], rel_pos(features, whole))
            if kept is not None:
                for layer, proj in enumerate(self.token_trans_proj_z):
                    assert isinstance(proj, NormLinear)
                    kept[layer, :, rows] = proj.channels_first(pairs)
            if pairs_kept is not None:
                pairs_kept[rows] = pairs
            windows = windows_of_tokens(features, whole)
            onto = _onto_atoms(self.atom_encoder.z_to_p_trans(pairs), whole, features, windows)
            from_tokens[windows] = from_tokens[windows] + onto
        biases = (
            LazyPairBias(pairs_kept, self.token_trans_proj_z, self.budget)
            if pairs_kept is not None
            else kept
        )
        assert biases is not None
        return biases, self.cp.all_reduce(from_tokens)


def _projections(num_blocks: int, dim: int, num_heads: int) -> nn.ModuleList:
    return nn.ModuleList(NormLinear(dim, num_heads) for _ in range(num_blocks))


def windows_of_tokens(features: Features, tokens: slice) -> slice:
    """The windows whose queries include atoms of these tokens; atoms stand in the order of their
    tokens.
    """
    first, last = np.searchsorted(features.layout.atom_token, [tokens.start, tokens.stop])
    return slice(int(first) // WINDOW_QUERIES, -(-int(last) // WINDOW_QUERIES))


def _onto_atoms(
    pairs: Float[Tensor, "R N Y"], rows: slice, features: Features, windows: slice
) -> Float[Tensor, "W 32 128 Y"]:
    """pairs[token of the query - start, token of the key], zero where the query's token is not
    among `cp`.
    """
    token = features.atom_token
    real = features.atom_mask > 0
    here = real & (token >= rows.start) & (token < rows.stop)
    i = queries(torch.where(here, token - rows.start, 0)[:, None])[windows]
    j = keys(token[:, None].float())[windows, None, :, 0].long()
    weight = (
        queries(here[:, None].to(pairs.dtype))[windows]
        * keys(real[:, None].to(pairs.dtype))[windows, None, :, 0]
    )
    return pairs[i, j] * weight[..., None]


class SingleConditioning(nn.Module):
    """AlphaFold 3, algorithm 21, from line 6, in two steps: without and with the noise level."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        dim = 2 * architecture.token_s
        self.norm_single = LayerNorm(dim)
        self.single_embed = Linear(dim, dim, bias=True)
        self.fourier_embed = FourierEmbedding(architecture.fourier_dim)
        self.norm_fourier = LayerNorm(architecture.fourier_dim)
        self.fourier_to_single = Linear(architecture.fourier_dim, dim)
        self.transitions = nn.ModuleList(
            Transition(dim, 2 * dim) for _ in range(architecture.conditioning_transitions)
        )

    def embed(
        self, s_trunk: Float[Tensor, "I S"], s_inputs: Float[Tensor, "I S"]
    ) -> Float[Tensor, "I C"]:
        return self.single_embed(self.norm_single(torch.cat([s_trunk, s_inputs], -1)))

    def forward(
        self, single: Float[Tensor, "I C"], time: Float[Tensor, "1"]
    ) -> Float[Tensor, "I C"]:
        s = single + self.fourier_to_single(self.norm_fourier(self.fourier_embed(time)))
        for transition in self.transitions:
            s = s + transition(s)
        return s


@dataclass(frozen=True)
class DenoiserCache:
    """The inputs of the score network that do not change from step to step."""

    single: Float[Tensor, "I C"]
    q: Float[Tensor, "A c"]
    encoder_bias: Float[Tensor, "E K h 32 128"]
    decoder_bias: Float[Tensor, "D K h 32 128"]
    encoder: list[Modulation]
    decoder: list[Modulation]
    modulator: Modulator
    attend: list[Attend]  # under the pair bias of each layer
    features: Features


class ScoreModel(nn.Module):
    """AlphaFold 3, algorithm 20. Atoms are whole on every rank; a rank updates its own tokens,
    which see all.
    """

    def __init__(self, architecture: Architecture, cp: ContextParallel) -> None:
        super().__init__()
        a = architecture
        dim = 2 * architecture.token_s
        self.cp = cp
        self.single_conditioner = SingleConditioning(a)
        self.atom_attention_encoder = AtomAttentionEncoder(a, structure=True)
        self.s_to_a_linear = nn.Sequential(LayerNorm(dim), Linear(dim, dim))
        self.token_transformer = DiffusionTransformer(
            dim, dim, a.token_transformer_blocks, a.diffusion_heads
        )
        self.a_norm = LayerNorm(dim)
        self.atom_attention_decoder = AtomAttentionDecoder(a)

    def prepare(
        self,
        s_trunk: Float[Tensor, "N S"],
        s_inputs: Float[Tensor, "N S"],
        conditioning: DiffusionConditioningOutput,
        features: Features,
    ) -> DenoiserCache:
        told = conditioning
        encoder = self.atom_attention_encoder
        decoder = self.atom_attention_decoder
        return DenoiserCache(
            single=self.single_conditioner.embed(self.cp.shard(s_trunk), self.cp.shard(s_inputs)),
            q=told.q,
            encoder_bias=told.encoder_bias,
            decoder_bias=told.decoder_bias,
            encoder=encoder.atom_encoder.modulations(told.c),
            decoder=decoder.atom_decoder.modulations(told.c),
            modulator=self.token_transformer.modulator(),
            attend=self._attentions(told.token_bias, features.token_mask),
            features=features,
        )

    def _attentions(
        self, biases: Float[Tensor, "L H I N"] | LazyPairBias, mask: Float[Tensor, " N"]
    ) -> list[Attend]:
        dtype = self.token_transformer.dtype

        def biased(layer: int) -> Attend:
            if torch.is_grad_enabled() or isinstance(biases, LazyPairBias):
                return lambda q, kv: pair_bias_attention(
                    q, kv[:, :, 0], kv[:, :, 1], biases[layer].to(dtype), mask
                )
            bias = prepare_bias(biases[layer].to(dtype), mask)
            return lambda q, kv: prepared_attention(q, kv[:, :, 0], kv[:, :, 1], bias)

        return [biased(layer) for layer in range(len(self.token_transformer.layers))]

    def forward(
        self, r: Float[Tensor, "M A 3"], time: Float[Tensor, "1"], prepared: DenoiserCache
    ) -> Float[Tensor, "M A 3"]:
        """Update of the scaled coordinates `r` at the scaled noise level `time` (no units)."""
        p = prepared

        def attend(layer: int, q: Tensor, kv: Tensor) -> Tensor:
            return p.attend[layer](q, self.cp.all_gather(kv, 1))

        s = self.single_conditioner(p.single, time)
        q = p.q + self.atom_attention_encoder.r_to_q_trans(r)
        a, q = self.atom_attention_encoder(q, p.encoder, p.encoder_bias, p.features)
        a = self.cp.shard(a, 1) + self.s_to_a_linear(s)
        a = self.token_transformer(a, p.modulator(s), attend)
        a = self.cp.all_gather(self.a_norm(a), 1)
        return self.atom_attention_decoder(a, q, p.decoder, p.decoder_bias, p.features)
