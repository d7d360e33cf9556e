"""Atoms: a transformer over windows of 32 atoms that see the 128 around them. All O(atoms),
whole on every rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.config import (
    ATOM_NAME_CHARS,
    NUM_ELEMENTS,
    WINDOW_KEYS,
    WINDOW_QUERIES,
    Architecture,
)
from foldcp.features.features import Features
from foldcp.kernels.window_attention import window_attention
from foldcp.model.layers.layers import LayerNorm, Linear
from foldcp.model.layers.transformer import DiffusionTransformer, Modulation

MARGIN = (WINDOW_KEYS - WINDOW_QUERIES) // 2  # keys before and after the queries of a window


def queries(x: Tensor) -> Tensor:
    """[*B, A, C] -> [*B, K, 32, C], the atoms of each window."""
    return x.unflatten(-2, (-1, WINDOW_QUERIES))


def keys(x: Tensor) -> Tensor:
    """[*B, A, C] -> [*B, K, 128, C], the atoms that each window sees; zeros beyond both ends."""
    padded = F.pad(x, (0, 0, MARGIN, MARGIN))
    return padded.unfold(-2, WINDOW_KEYS, WINDOW_QUERIES).transpose(-1, -2)


class AtomTransformer(nn.Module):
    """AlphaFold 3, algorithm 7: attention within windows."""

    def __init__(self, dim: int, num_blocks: int, num_heads: int) -> None:
        super().__init__()
        self.diffusion_transformer = DiffusionTransformer(dim, dim, num_blocks, num_heads)

    def modulations(self, c: Float[Tensor, "A C"]) -> list[Modulation]:
        return self.diffusion_transformer.modulations(c)

    def forward(
        self,
        q: Float[Tensor, "M A C"],
        modulations: Sequence[Modulation],
        bias: Float[Tensor, "L K H 32 128"],
        atom_mask: Float[Tensor, " A"],
    ) -> Float[Tensor, "M A C"]:

        def attend(layer: int, q: Tensor, kv: Tensor) -> Float[Tensor, "M A H D"]:
            return window_attention(q, kv[:, :, 0], kv[:, :, 1], bias[layer], atom_mask)

        return self.diffusion_transformer(q, modulations, attend)


class AtomEncoder(nn.Module):
    """Atoms and pairs of atoms within windows, from the reference conformers: AlphaFold 3,
    algorithm 5, lines 1 to 14.

    With `structure`, the trunk's single and pair representation are added.
    """

    def __init__(self, architecture: Architecture, structure: bool) -> None:
        super().__init__()
        a = architecture
        self.embed_atom_features = Linear(
            4 + NUM_ELEMENTS + ATOM_NAME_CHARS[0] * ATOM_NAME_CHARS[1], a.atom_s, True
        )
        self.embed_atompair_ref_pos = Linear(3, a.atom_z)
        self.embed_atompair_ref_dist = Linear(1, a.atom_z)
        self.embed_atompair_mask = Linear(1, a.atom_z)
        if structure:
            self.s_to_c_trans = nn.Sequential(LayerNorm(a.token_s), Linear(a.token_s, a.atom_s))
            self.z_to_p_trans = nn.Sequential(LayerNorm(a.token_z), Linear(a.token_z, a.atom_z))
        self.c_to_p_trans_k = nn.Sequential(nn.ReLU(), Linear(a.atom_s, a.atom_z))
        self.c_to_p_trans_q = nn.Sequential(nn.ReLU(), Linear(a.atom_s, a.atom_z))
        self.p_mlp = nn.Sequential(
            *[part for _ in range(3) for part in (nn.ReLU(), Linear(a.atom_z, a.atom_z))]
        )

    def atoms(self, features: Features) -> Float[Tensor, "A C"]:
        """What an atom is; one-hot features times a matrix are rows of it."""
        f = features
        weight = self.embed_atom_features.weight.T
        bias = self.embed_atom_features.bias
        by_number, by_element, by_chars = weight.split(
            [4, NUM_ELEMENTS, ATOM_NAME_CHARS[0] * ATOM_NAME_CHARS[1]]
        )
        offset = torch.arange(ATOM_NAME_CHARS[0], device=weight.device) * ATOM_NAME_CHARS[1]
        c = torch.cat([f.ref_pos, f.ref_charge[:, None]], -1).to(weight.dtype) @ by_number
        c = (
            c
            + F.embedding(f.ref_element, by_element)
            + F.embedding(f.ref_atom_name_chars + offset, by_chars).sum(1)
        )
        return c * f.atom_mask[:, None].to(c.dtype) + bias

    def pairs(
        self,
        features: Features,
        c: Float[Tensor, "A C"],
        from_tokens: Float[Tensor, "K 32 128 Z"] | None = None,
    ) -> Float[Tensor, "K 32 128 Z"]:
        """Pairs of a query and a key of each window."""
        f = features
        dtype = self.embed_atompair_mask.weight.dtype
        # One table of what pairs need, so that windows are cut once: position, conformer, mask.
        table = torch.cat(
            [
                f.ref_pos,
                f.ref_space_uid[:, None].to(f.ref_pos),
                f.atom_mask[:, None].to(f.ref_pos),
            ],
            -1,
        )
        of_query = queries(table)[:, :, None]
        of_key = keys(table)[:, None]
        offset = of_key[..., :3] - of_query[..., :3]
        same = (of_query[..., 3] == of_key[..., 3]) & (of_query[..., 4] > 0) & (of_key[..., 4] > 0)
        closeness = 1 / (1 + offset.square().sum(-1, keepdim=True))
        p = self.embed_atompair_ref_pos(offset) + self.embed_atompair_ref_dist(closeness)
        p = (p + self.embed_atompair_mask.weight[:, 0]) * same[..., None].to(dtype)
        if from_tokens is not None:
            p = p + from_tokens
        p = p + queries(self.c_to_p_trans_q(c))[:, :, None] + keys(self.c_to_p_trans_k(c))[:, None]
        return p + self.p_mlp(p)


def to_tokens(x: Float[Tensor, "*M A C"], features: Features) -> Float[Tensor, "*M N C"]:
    """The mean over each token's atoms, which follow each other; zero for padding.

    Added up atom by atom: `index_add` on a GPU adds in any order, and no two predictions would be
    the same.
    """
    real = features.atom_mask > 0
    N = features.num_tokens
    token = torch.where(real, features.atom_token, N)  # padding atoms come last
    edges = torch.searchsorted(token, torch.arange(N + 1, device=token.device))
    by_atom = (x * real[:, None]).movedim(-2, 0)
    total = torch.segment_reduce(by_atom.flatten(1), "sum", offsets=edges, unsafe=True)
    mean = total / (edges.diff()[:, None] + 1e-6)
    return mean.unflatten(1, by_atom.shape[1:]).movedim(0, -2)


def to_atoms(x: Float[Tensor, "*M N C"], features: Features) -> Float[Tensor, "*M A C"]:
    """Each atom's token; zero for padding."""
    return x.index_select(-2, features.atom_token) * features.atom_mask[:, None].to(x.dtype)


class AtomAttentionEncoder(nn.Module):
    """Atoms -> tokens: AlphaFold 3, algorithm 5, from line 15."""

    def __init__(self, architecture: Architecture, structure: bool) -> None:
        super().__init__()
        a = architecture
        if structure:
            self.r_to_q_trans = Linear(3, a.atom_s)
        num_blocks, num_heads = (
            (a.atom_encoder_blocks, a.atom_heads)
            if structure
            else (a.input_atom_blocks, a.input_atom_heads)
        )
        self.atom_encoder = AtomTransformer(a.atom_s, num_blocks, num_heads)
        self.atom_to_token_trans = nn.Sequential(
            Linear(a.atom_s, (2 if structure else 1) * a.token_s), nn.ReLU()
        )

    def forward(
        self,
        q: Float[Tensor, "M A C"],
        modulations: Sequence[Modulation],
        bias: Float[Tensor, "L K H 32 128"],
        features: Features,
    ) -> tuple[Float[Tensor, "M N S"], Float[Tensor, "M A C"]]:
        q = self.atom_encoder(q, modulations, bias, features.atom_mask)
        return to_tokens(self.atom_to_token_trans(q), features), q


class AtomAttentionDecoder(nn.Module):
    """Tokens -> atoms -> movement of each atom: AlphaFold 3, algorithm 6."""

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
        modulations: Sequence[Modulation],
        bias: Float[Tensor, "L K H 32 128"],
        features: Features,
    ) -> Float[Tensor, "M A 3"]:
        q = q + to_atoms(self.a_to_q_trans(a), features)
        return self.atom_feat_to_atom_pos_update(
            self.atom_decoder(q, modulations, bias, features.atom_mask)
        )
