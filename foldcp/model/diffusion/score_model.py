"""Score network: the update of every atom of a noisy structure."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.config import Architecture
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.kernels import pair_bias_attention
from foldcp.kernels.dispatch import Backend
from foldcp.kernels.pair_bias_attention import AttentionUnderBias, PairBiasAttention
from foldcp.model.diffusion.conditioning import (
    DiffusionConditioningOutput,
    LazyPairBias,
)
from foldcp.model.layers.atoms import AtomAttentionDecoder, AtomAttentionEncoder, AtomTokens
from foldcp.model.layers.blocks import RunBlock
from foldcp.model.layers.layers import (
    FourierEmbedding,
    KernelModule,
    LayerNorm,
    Linear,
    Transition,
)
from foldcp.model.layers.transformer import (
    Attend,
    DiffusionTransformer,
    LayerModulation,
    Modulator,
)


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
        self, single: Float[Tensor, "I C"], time: Float[Tensor, "*M 1"]
    ) -> Float[Tensor, "*M I C"]:
        """Of one noise level, or of M at once."""
        s = single + self.fourier_to_single(self.norm_fourier(self.fourier_embed(time)))
        for transition in self.transitions:
            s = s + transition(s)
        return s


@dataclass(frozen=True)
class TokenAttention:
    """This rank's tokens attend to all tokens, under the pair bias of one layer."""

    cp: ContextParallel
    attention: PairBiasAttention
    biases: list[Float[Tensor, "H I N"]] | LazyPairBias
    layer: int
    mask: Float[Tensor, " N"]
    dtype: torch.dtype

    def __call__(
        self,
        q: Float[Tensor, "M I H D"],
        kv: Float[Tensor, "M I 2 H D"],
        gate: Float[Tensor, "M I H D"],
    ) -> Float[Tensor, "M I H D"]:
        k, v = self.cp.all_gather(kv, 1).unbind(2)
        bias = self.biases[self.layer].to(self.dtype)
        if torch.is_grad_enabled():
            return self.attention(q, k, v, gate, bias, self.mask)
        # As where the biases of all layers are kept: the same kernel, type and bits.
        return self.attention.prepare(bias, self.mask)(q, k, v, gate)


@dataclass(frozen=True)
class PreparedTokenAttention:
    """`TokenAttention` with a prepared bias. No gradient."""

    cp: ContextParallel
    attention: AttentionUnderBias

    def __call__(
        self,
        q: Float[Tensor, "M I H D"],
        kv: Float[Tensor, "M I 2 H D"],
        gate: Float[Tensor, "M I H D"],
    ) -> Float[Tensor, "M I H D"]:
        k, v = self.cp.all_gather(kv, 1).unbind(2)
        return self.attention(q, k, v, gate)


@dataclass(frozen=True)
class DenoiserCache:
    """The inputs of the score network that do not change from step to step.

    Of one complex, or of B complexes one after the other along tokens and atoms (see `packed`).
    """

    single: Float[Tensor, "I C"]
    q: Float[Tensor, "A c"]
    encoder_bias: Float[Tensor, "E K h 32 128"]
    decoder_bias: Float[Tensor, "D K h 32 128"]
    encoder_modulations: list[LayerModulation]
    decoder_modulations: list[LayerModulation]
    modulator: Modulator  # of the token transformer, whose conditioning depends on the noise level
    token_attention: list[Attend]
    atoms: AtomTokens
    present: Float[Tensor, "B a"]  # 1 at the atoms of a complex, 0 at those that packing added

    @property
    def num_tokens(self) -> int:
        """Tokens of all complexes, padding included."""
        return len(self.atoms.num_atoms)


class ScoreModel(KernelModule):
    """AlphaFold 3, algorithm 20.

    Atoms are whole on every rank; a rank updates its own tokens, which attend to all.
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
        self.use_kernels(Backend())

    def use_kernels(self, backend: Backend) -> None:
        transformer = self.token_transformer
        self.pair_bias_attention = pair_bias_attention.choose(
            backend, transformer.dtype, transformer.dim // transformer.num_heads
        )

    def modulator(self) -> Modulator:
        """Of the token transformer."""
        dtype = self.token_transformer.dtype
        return self.token_transformer.modulator(self.pair_bias_attention.input_dtype(dtype))

    def prepare(
        self,
        s_trunk: Float[Tensor, "N S"],
        s_inputs: Float[Tensor, "N S"],
        conditioning: DiffusionConditioningOutput,
        features: Features,
        modulator: Modulator | None = None,
    ) -> DenoiserCache:
        """Compute the inputs that do not depend on the noisy structure or its noise level.
        `modulator` is that of this network, for several complexes.

        Without gradients `conditioning.token_bias` is empty afterwards: each bias goes when what
        is prepared of it, as large, is there.
        """
        own_trunk = self.cp.shard(s_trunk)
        own_inputs = self.cp.shard(s_inputs)
        encoder = self.atom_attention_encoder.atom_encoder
        decoder = self.atom_attention_decoder.atom_decoder
        return DenoiserCache(
            single=self.single_conditioner.embed(own_trunk, own_inputs),
            q=conditioning.q,
            encoder_bias=conditioning.encoder_bias,
            decoder_bias=conditioning.decoder_bias,
            encoder_modulations=encoder.modulations(conditioning.c),
            decoder_modulations=decoder.modulations(conditioning.c),
            modulator=modulator or self.modulator(),
            token_attention=self._token_attention(conditioning.token_bias, features.token_mask),
            atoms=AtomTokens.of(features),
            present=torch.ones_like(features.atom_mask)[None],
        )

    def _token_attention(
        self, biases: list[Float[Tensor, "H I N"]] | LazyPairBias, mask: Float[Tensor, " N"]
    ) -> list[Attend]:
        """The attention of each layer of the token transformer."""
        attention = self.pair_bias_attention
        dtype = self.token_transformer.dtype
        if torch.is_grad_enabled() or isinstance(biases, LazyPairBias):
            layers = range(len(self.token_transformer.layers))
            return [
                TokenAttention(self.cp, attention, biases, layer, mask, dtype) for layer in layers
            ]
        prepared = []
        while biases:
            under_bias = attention.prepare(biases.pop(0).to(dtype), mask)
            prepared.append(PreparedTokenAttention(self.cp, under_bias))
        return prepared

    def conditioned(
        self, times: Float[Tensor, " L"], cache: DenoiserCache
    ) -> Float[Tensor, "L I C"]:
        """The single representation at L scaled noise levels (no units)."""
        return self.single_conditioner(cache.single, times[:, None])

    def forward(
        self, r: Float[Tensor, "M A 3"], s: Float[Tensor, "I C"], cache: DenoiserCache
    ) -> Float[Tensor, "M A 3"]:
        """Update of the scaled coordinates `r` at the noise level of `s`, as `conditioned` gives
        it.
        """
        q = cache.q + self.atom_attention_encoder.r_to_q_trans(r)
        a, q = self.atom_attention_encoder(
            q, cache.encoder_modulations, cache.encoder_bias, cache.atoms
        )
        a = self.cp.shard(a, 1) + self.s_to_a_linear(s)
        a = self.token_transformer(a, cache.modulator(s), cache.token_attention)
        a = self.cp.all_gather(self.a_norm(a), 1)
        return self.atom_attention_decoder(
            a, q, cache.decoder_modulations, cache.decoder_bias, cache.atoms
        )

    def train_forward(
        self,
        r: Float[Tensor, "M A 3"],
        time: Float[Tensor, " M"],
        cache: DenoiserCache,
        run: RunBlock,
    ) -> Float[Tensor, "M A 3"]:
        """The same for samples that each have a noise level; `run` runs each layer."""
        s = run(self.single_conditioner, cache.single, time[:, None])
        q = cache.q + self.atom_attention_encoder.r_to_q_trans(r)
        a, q = self.atom_attention_encoder(
            q, cache.encoder_modulations, cache.encoder_bias, cache.atoms, run
        )
        a = self.cp.shard(a, 1) + self.s_to_a_linear(s)
        a = self.token_transformer.train_forward(a, s, cache.token_attention, run)
        a = self.cp.all_gather(self.a_norm(a), 1)
        return self.atom_attention_decoder(
            a, q, cache.decoder_modulations, cache.decoder_bias, cache.atoms, run
        )
