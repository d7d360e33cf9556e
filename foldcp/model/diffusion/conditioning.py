"""Diffusion conditioning: inputs of the score network from the trunk, the same at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from foldcp.config import WINDOW_KEYS, WINDOW_QUERIES, Architecture
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.kernels.window_attention import key_windows, query_windows
from foldcp.model.layers.atoms import AtomEncoder
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.model.layers.layers import LayerNorm, Linear, NormLinear, Transition
from foldcp.model.layers.offload import Copy, available_bytes, offload, restore
from foldcp.model.trunk.pair_embedder import RelativePosition

# The biases of all layers are stored where more than this many times their size is free: what the
# attention of a layer prepares takes the place of its bias.
MIN_FREE_FACTOR = 2


@dataclass(frozen=True)
class LazyPairBias:
    """The token transformer's pair biases, each computed when its layer runs.

    For where memory does not hold the biases of all layers. Without gradients `pairs` have taken
    the place of the trunk's z, of which there is a copy, until `restore`.
    """

    pairs: Float[Tensor, "I N Z"]
    projections: list[NormLinear]
    budget: ChunkBudget
    copy_of_z: Copy

    @classmethod
    def instead_of(
        cls, z: Float[Tensor, "I N Z"], projections: list[NormLinear], budget: ChunkBudget
    ) -> LazyPairBias:
        """Biases whose pairs are to be written to `pairs`, chunk by chunk, as they are computed
        from z.
        """
        if torch.is_grad_enabled():
            return cls(torch.empty_like(z), projections, budget, [])
        max_rows = budget.rows_per_chunk(z[0].nbytes, z.device)
        return cls(z, projections, budget, offload(z, max_rows))

    def restore(self) -> None:
        """Make z what it was; the biases must not be asked for again."""
        restore(self.pairs, self.copy_of_z)

    def __getitem__(self, layer: int) -> Float[Tensor, "H I N"]:
        projection = self.projections[layer]
        weight = projection.linear.weight
        I, N, _ = self.pairs.shape
        num_heads = len(weight)
        bias = self.pairs.new_empty((num_heads, I, N), dtype=weight.dtype)
        # Including a copy of the normalised input.
        bytes_per_row = projection.bytes_per_row(N) * 3 // 2
        for rows in self.budget.chunks(I, bytes_per_row, self.pairs.device):
            bias[:, rows] = projection.channels_first(self.pairs[rows])
        return bias


@dataclass(frozen=True)
class DiffusionConditioningOutput:
    """Inputs of the score network from the trunk, the same for every sample and step.

    `token_bias` has one bias a layer, each an array of its own, which `ScoreModel.prepare` takes
    out, where no gradient is wanted, to free it. After sampling `restore_z` must be called; until
    then, and after an error, the trunk's z may be something else.
    """

    q: Float[Tensor, "A C"]  # atoms
    c: Float[Tensor, "A C"]  # atoms with the single representation of their tokens
    encoder_bias: Float[Tensor, "E K h 32 128"]
    decoder_bias: Float[Tensor, "D K h 32 128"]
    token_bias: list[Float[Tensor, "H I N"]] | LazyPairBias

    def restore_z(self) -> None:
        """Make the trunk's z what it was, if its memory was needed. Samples are drawn before."""
        if isinstance(self.token_bias, LazyPairBias):
            self.token_bias.restore()


class PairwiseConditioning(nn.Module):
    """AlphaFold 3, algorithm 21, lines 1 to 5."""

    def __init__(self, dim: int, num_transitions: int, budget: ChunkBudget) -> None:
        super().__init__()
        self.dim = dim
        self.budget = budget
        self.dim_pairwise_init_proj = nn.Sequential(LayerNorm(2 * dim), Linear(2 * dim, dim))
        self.transitions = nn.ModuleList(Transition(dim, 2 * dim) for _ in range(num_transitions))

    def forward(
        self, z: Float[Tensor, "R N C"], relative: Float[Tensor, "R N C"]
    ) -> Float[Tensor, "R N C"]:
        both = torch.cat([z, relative.to(z.dtype)], -1)
        z = self.dim_pairwise_init_proj(both)
        for transition in self.transitions:
            assert isinstance(transition, Transition)
            z = transition.add_to(z, self.budget)
        return z

    def bytes_per_row(self, N: int) -> int:
        """Bytes of the intermediates of a row of N pairs."""
        return N * 8 * self.dim * 4


class DiffusionConditioning(nn.Module):
    """Computes the biases of every layer of the score network from the trunk's representations."""

    def __init__(
        self, architecture: Architecture, cp: ContextParallel, budget: ChunkBudget
    ) -> None:
        super().__init__()
        a = architecture
        self.cp = cp
        self.budget = budget
        self.num_heads = a.diffusion_heads
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
        token_bias, token_pairs = self._token_pair_bias(z, rel_pos, features)
        q = self.atom_encoder.atoms(features)
        single = self.atom_encoder.s_to_c_trans(s).index_select(0, features.atom_token)
        c = q + single * features.atom_mask[:, None]
        p = self.atom_encoder.pairs(features, c, token_pairs)
        return DiffusionConditioningOutput(
            q=q,
            c=c,
            encoder_bias=_window_biases(self.atom_enc_proj_z, p),
            decoder_bias=_window_biases(self.atom_dec_proj_z, p),
            token_bias=token_bias,
        )

    def _token_pair_bias(
        self, z: Float[Tensor, "I N Z"], rel_pos: RelativePosition, features: Features
    ) -> tuple[list[Float[Tensor, "H I N"]] | LazyPairBias, Float[Tensor, "K 32 128 Y"]]:
        """The token transformer's biases of this rank's rows, and what pairs of atoms in windows
        get from their tokens.
        """
        I, N, _ = z.shape
        projections = _norm_linears(self.token_trans_proj_z)
        stored = self._allocate_biases(z)
        lazy = None
        if stored is None:
            lazy = LazyPairBias.instead_of(z, projections, self.budget)
        token_pairs = self._zero_window_pairs(features)
        first = self.cp.first_row(N)
        bytes_of_biases = N * len(projections) * self.num_heads * 4
        bytes_per_row = self.pairwise_conditioner.bytes_per_row(N) + bytes_of_biases
        for rows in self.budget.chunks(I, bytes_per_row, z.device):
            tokens = slice(first + rows.start, first + rows.stop)
            pairs = self.pairwise_conditioner(z[rows], rel_pos(features, tokens))
            if stored is not None:
                for bias, projection in zip(stored, projections, strict=True):
                    bias[:, rows] = projection.channels_first(pairs)
            if lazy is not None:
                lazy.pairs[rows] = pairs
            windows = windows_of_tokens(features, tokens)
            projected = self.atom_encoder.z_to_p_trans(pairs)
            update = _scatter_to_windows(projected, tokens, features, windows)
            token_pairs[windows] = token_pairs[windows] + update
        biases = stored if lazy is None else lazy
        assert biases is not None
        return biases, self.cp.all_reduce(token_pairs)

    def _allocate_biases(self, z: Float[Tensor, "I N Z"]) -> list[Float[Tensor, "H I N"]] | None:
        """Memory for the biases of all layers; None where it would take too much of what is
        free.
        """
        I, N, _ = z.shape
        projections = _norm_linears(self.token_trans_proj_z)
        dtype = projections[0].linear.weight.dtype
        shape = (self.num_heads, I, N)
        num_bytes = len(projections) * math.prod(shape) * dtype.itemsize
        if MIN_FREE_FACTOR * num_bytes >= available_bytes(z.device):
            return None
        return [z.new_empty(shape, dtype=dtype) for _ in projections]

    def _zero_window_pairs(self, features: Features) -> Float[Tensor, "K 32 128 Y"]:
        weight = self.atom_encoder.embed_atompair_mask.weight  # atom_z x 1, in the type of atoms
        num_windows = features.num_atoms // WINDOW_QUERIES
        return weight.new_zeros((num_windows, WINDOW_QUERIES, WINDOW_KEYS, len(weight)))


def _projections(num_blocks: int, dim: int, num_heads: int) -> nn.ModuleList:
    return nn.ModuleList(NormLinear(dim, num_heads) for _ in range(num_blocks))


def _norm_linears(projections: nn.ModuleList) -> list[NormLinear]:
    return [projection for projection in projections if isinstance(projection, NormLinear)]


def _window_biases(
    projections: nn.ModuleList, p: Float[Tensor, "K 32 128 Y"]
) -> Float[Tensor, "L K h 32 128"]:
    biases = [projection(p) for projection in projections]
    # `stack` alone would keep the heads last, and the attention copy its bias at every step.
    return torch.stack([bias.permute(0, 3, 1, 2) for bias in biases]).contiguous()


def windows_of_tokens(features: Features, tokens: slice) -> slice:
    """The windows whose queries include atoms of these tokens; atoms are in the order of tokens."""
    first, last = np.searchsorted(features.layout.atom_token, [tokens.start, tokens.stop])
    return slice(int(first) // WINDOW_QUERIES, -(-int(last) // WINDOW_QUERIES))


def _scatter_to_windows(
    pairs: Float[Tensor, "R N Y"], tokens: slice, features: Features, windows: slice
) -> Float[Tensor, "W 32 128 Y"]:
    """pairs[token of the query - tokens.start, token of the key] in these windows.

    Zero at padding, and where the token of the query is not among `tokens`.
    """
    token = features.atom_token
    real = features.atom_mask > 0
    in_chunk = real & (token >= tokens.start) & (token < tokens.stop)
    row = torch.where(in_chunk, token - tokens.start, 0)
    i = _queries_in(windows, row)
    j = _keys_in(windows, token.float()).long()
    query_mask = _queries_in(windows, in_chunk.to(pairs.dtype))
    key_mask = _keys_in(windows, real.to(pairs.dtype))
    # The gradient of indices of two dimensions sorts them all.
    chosen = pairs.flatten(0, 1).index_select(0, (i * pairs.shape[1] + j).flatten())
    return chosen.view(*j.expand_as(i * j).shape, -1) * (query_mask * key_mask)[..., None]


def _queries_in(windows: slice, x: Shaped[Tensor, " A"]) -> Shaped[Tensor, "W 32 1"]:
    return query_windows(x[:, None])[windows]


def _keys_in(windows: slice, x: Shaped[Tensor, " A"]) -> Shaped[Tensor, "W 1 128"]:
    return key_windows(x[:, None])[windows].mT
