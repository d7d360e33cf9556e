"""Atom layers: a transformer over windows of 32 atoms that attend to the 128 around them.

All O(atoms), whole on every rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from foldcp.config import ATOM_NAME_CHARS, NUM_ELEMENTS, Architecture
from foldcp.features.features import Features
from foldcp.kernels import token_mean, window_attention
from foldcp.kernels.dispatch import Backend
from foldcp.kernels.window_attention import WindowAttention, key_windows, query_windows
from foldcp.model.layers.blocks import RunBlock, run_block
from foldcp.model.layers.layers import KernelModule, LayerNorm, Linear
from foldcp.model.layers.transformer import DiffusionTransformer, LayerModulation

NUM_NUMERIC = 4  # position and charge
NUM_NAME_FEATURES = ATOM_NAME_CHARS[0] * ATOM_NAME_CHARS[1]


@dataclass(frozen=True)
class AttentionInWindows:
    """Atoms attend within windows, under the pair bias of one layer."""

    attention: WindowAttention
    bias: Float[Tensor, "K H 32 128"]
    atom_mask: Float[Tensor, " A"]

    def __call__(
        self,
        q: Float[Tensor, "M A H D"],
        kv: Float[Tensor, "M A 2 H D"],
        gate: Float[Tensor, "M A H D"],
    ) -> Float[Tensor, "M A H D"]:
        k, v = kv.unbind(2)
        return self.attention(q, k, v, gate, self.bias, self.atom_mask)


class AtomTransformer(KernelModule):
    """AlphaFold 3, algorithm 7: attention within windows."""

    def __init__(self, dim: int, num_blocks: int, num_heads: int) -> None:
        super().__init__()
        self.diffusion_transformer = DiffusionTransformer(dim, dim, num_blocks, num_heads)
        self.use_kernels(Backend())

    def use_kernels(self, backend: Backend) -> None:
        self.attention = window_attention.choose(backend, self.diffusion_transformer.dtype)

    def modulations(self, c: Float[Tensor, "A C"]) -> list[LayerModulation]:
        """The modulations of all layers."""
        return self.diffusion_transformer.modulations(c)

    def forward(
        self,
        q: Float[Tensor, "M A C"],
        modulations: Sequence[LayerModulation],
        bias: Float[Tensor, "L K H 32 128"],
        atom_mask: Float[Tensor, " A"],
        run: RunBlock = run_block,
    ) -> Float[Tensor, "M A C"]:
        attends = [AttentionInWindows(self.attention, layer_bias, atom_mask) for layer_bias in bias]
        return self.diffusion_transformer(q, modulations, attends, run)


class AtomEncoder(nn.Module):
    """Atoms and pairs of atoms within windows, from the reference conformers.

    With `structure`, the trunk's single and pair representation are added. Source: AlphaFold 3,
    algorithm 5, lines 1 to 14.
    """

    def __init__(self, architecture: Architecture, structure: bool) -> None:
        super().__init__()
        a = architecture
        num_features = NUM_NUMERIC + NUM_ELEMENTS + NUM_NAME_FEATURES
        self.embed_atom_features = Linear(num_features, a.atom_s, bias=True)
        self.embed_atompair_ref_pos = Linear(3, a.atom_z)
        self.embed_atompair_ref_dist = Linear(1, a.atom_z)
        self.embed_atompair_mask = Linear(1, a.atom_z)
        if structure:
            self.s_to_c_trans = nn.Sequential(LayerNorm(a.token_s), Linear(a.token_s, a.atom_s))
            self.z_to_p_trans = nn.Sequential(LayerNorm(a.token_z), Linear(a.token_z, a.atom_z))
        self.c_to_p_trans_k = nn.Sequential(nn.ReLU(), Linear(a.atom_s, a.atom_z))
        self.c_to_p_trans_q = nn.Sequential(nn.ReLU(), Linear(a.atom_s, a.atom_z))
        self.p_mlp = nn.Sequential(
            nn.ReLU(),
            Linear(a.atom_z, a.atom_z),
            nn.ReLU(),
            Linear(a.atom_z, a.atom_z),
            nn.ReLU(),
            Linear(a.atom_z, a.atom_z),
        )

    def atoms(self, features: Features) -> Float[Tensor, "A C"]:
        """Embedding of each atom's features; one-hot features times a matrix are rows of it."""
        f = features
        weight = self.embed_atom_features.weight.T
        bias = self.embed_atom_features.bias
        numeric_weight, element_weight, name_weight = weight.split(
            [NUM_NUMERIC, NUM_ELEMENTS, NUM_NAME_FEATURES]
        )
        num_chars, num_codes = ATOM_NAME_CHARS
        first_row = torch.arange(num_chars, device=weight.device) * num_codes
        numeric = torch.cat([f.ref_pos, f.ref_charge[:, None]], -1)
        element = F.embedding(f.ref_element, element_weight)
        name = F.embedding(f.ref_atom_name_chars + first_row, name_weight).sum(1)
        c = numeric.to(weight.dtype) @ numeric_weight + element + name
        return c * f.atom_mask[:, None].to(c.dtype) + bias

    def pairs(
        self,
        features: Features,
        c: Float[Tensor, "A C"],
        token_pairs: Float[Tensor, "K 32 128 Z"] | None = None,
    ) -> Float[Tensor, "K 32 128 Z"]:
        """Pairs of a query and a key of each window; `token_pairs` is what their tokens give."""
        f = features
        dtype = self.embed_atompair_mask.weight.dtype
        # One table of what pairs need, so that windows are cut once: position, conformer, mask.
        conformer = f.ref_space_uid[:, None].to(f.ref_pos)
        mask = f.atom_mask[:, None].to(f.ref_pos)
        table = torch.cat([f.ref_pos, conformer, mask], -1)
        query = query_windows(table)[:, :, None]
        key = key_windows(table)[:, None]
        offset = key[..., :3] - query[..., :3]
        same_conformer = query[..., 3] == key[..., 3]
        valid = same_conformer & (query[..., 4] > 0) & (key[..., 4] > 0)
        closeness = 1 / (1 + offset.square().sum(-1, keepdim=True))
        p = self.embed_atompair_ref_pos(offset) + self.embed_atompair_ref_dist(closeness)
        p = (p + self.embed_atompair_mask.weight[:, 0]) * valid[..., None].to(dtype)
        if token_pairs is not None:
            p = p + token_pairs
        query_update = query_windows(self.c_to_p_trans_q(c))[:, :, None]
        key_update = key_windows(self.c_to_p_trans_k(c))[:, None]
        p = p + query_update + key_update
        return p + self.p_mlp(p)


@dataclass(frozen=True)
class AtomTokens:
    """Which atoms are of which token: those of a token are consecutive, padding is of none."""

    atom_mask: Float[Tensor, " A"]
    atom_token: Int[Tensor, " A"]  # of any token for padding
    first_atom: Int[Tensor, " E"]  # of each of the N tokens; the next one's is the end (E = N + 1)
    num_atoms: Int[Tensor, "N 1"]  # of each token, padding not counted

    @classmethod
    def of(cls, features: Features) -> AtomTokens:
        """Those of a complex, whose padding atoms come last."""
        N = features.num_tokens
        token = torch.where(features.atom_mask > 0, features.atom_token, N)
        first_atom = torch.searchsorted(token, torch.arange(N + 1, device=token.device))
        num_atoms = first_atom.diff()[:, None]
        return cls(features.atom_mask, features.atom_token, first_atom, num_atoms)


def to_atoms(x: Float[Tensor, "*M N C"], atoms: AtomTokens) -> Float[Tensor, "*M A C"]:
    """The value of each atom's token; zero for padding."""
    mask = atoms.atom_mask[:, None].to(x.dtype)
    return x.index_select(-2, atoms.atom_token) * mask


class AtomAttentionEncoder(KernelModule):
    """Encoder from atoms to tokens: AlphaFold 3, algorithm 5, from line 15."""

    def __init__(self, architecture: Architecture, structure: bool) -> None:
        super().__init__()
        a = architecture
        if structure:
            self.r_to_q_trans = Linear(3, a.atom_s)
            self.atom_encoder = AtomTransformer(a.atom_s, a.atom_encoder_blocks, a.atom_heads)
            token_dim = 2 * a.token_s
        else:
            self.atom_encoder = AtomTransformer(a.atom_s, a.input_atom_blocks, a.input_atom_heads)
            token_dim = a.token_s
        self.atom_to_token_trans = nn.Sequential(Linear(a.atom_s, token_dim))  # and a ReLU
        self.use_kernels(Backend())

    def use_kernels(self, backend: Backend) -> None:
        weight = self.atom_to_token_trans[0].weight
        assert isinstance(weight, Tensor)
        self.token_mean = token_mean.choose(backend, weight.dtype)

    def forward(
        self,
        q: Float[Tensor, "M A C"],
        modulations: Sequence[LayerModulation],
        bias: Float[Tensor, "L K H 32 128"],
        atoms: AtomTokens,
        run: RunBlock = run_block,
    ) -> tuple[Float[Tensor, "M N S"], Float[Tensor, "M A C"]]:
        q = self.atom_encoder(q, modulations, bias, atoms.atom_mask, run)
        of_atoms = self.atom_to_token_trans(q)
        means = self.token_mean(of_atoms, atoms.atom_mask, atoms.first_atom, atoms.num_atoms)
        return means, q


class AtomAttentionDecoder(nn.Module):
    """Decoder from tokens to an update of each atom's position: AlphaFold 3, algorithm 6."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        self.a_to_q_trans = Linear(2 * a.token_s, a.atom_s)
        self.atom_decoder = AtomTransformer(a.atom_s, a.atom_decoder_blocks, a.atom_heads)
        self.atom_feat_to_atom_pos_update = nn.Sequential(LayerNorm(a.atom_s), Linear(a.atom_s, 3))

    def forward(
        self,
        a: Float[Tensor, "M N S"],
        q: Float[Tensor, "M A C"],
        modulations: Sequence[LayerModulation],
        bias: Float[Tensor, "L K H 32 128"],
        atoms: AtomTokens,
        run: RunBlock = run_block,
    ) -> Float[Tensor, "M A 3"]:
        q = q + to_atoms(self.a_to_q_trans(a), atoms)
        q = self.atom_decoder(q, modulations, bias, atoms.atom_mask, run)
        return self.atom_feat_to_atom_pos_update(q)
