"""Atoms: a transformer over windows of 32 atoms that see the 128 around them. All O(atoms), whole on every rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.config import ATOM_NAME_CHARS, NUM_ELEMENTS, WINDOW_KEYS, WINDOW_QUERIES, Architecture
from foldcp.features import Features
from foldcp.model.layers import LayerNorm, Linear

MASKED = -1e6  # added to the score of a padding key, as Boltz does
MARGIN = (WINDOW_KEYS - WINDOW_QUERIES) // 2  # keys before and after the queries of a window


def queries(x: Tensor) -> Tensor:
    """[*B, A, C] -> [*B, K, 32, C], the atoms of each window."""
    return x.unflatten(-2, (-1, WINDOW_QUERIES))


def keys(x: Tensor) -> Tensor:
    """[*B, A, C] -> [*B, K, 128, C], the atoms that each window sees; zeros beyond both ends."""
    padded = F.pad(x, (0, 0, MARGIN, MARGIN))
    return padded.unfold(-2, WINDOW_KEYS, WINDOW_QUERIES).transpose(-1, -2)


class Modulation(NamedTuple):
    """How the conditioning scales, shifts and gates one layer; it does not depend on the sample."""

    attention: tuple[Tensor, Tensor, Tensor]  # scale, shift, gate
    transition: tuple[Tensor, Tensor, Tensor]


class AdaLN(nn.Module):
    """AlphaFold 3, algorithm 26, in two steps: what the conditioning asks for, and its application."""

    def __init__(self, dim: int, cond_dim: int) -> None:
        super().__init__()
        self.a_norm = LayerNorm(dim, elementwise_affine=False)
        self.s_norm = LayerNorm(cond_dim, bias=False)
        self.s_scale = Linear(cond_dim, dim, bias=True)
        self.s_bias = Linear(cond_dim, dim)

    def modulation(self, s: Float[Tensor, "*B S"]) -> tuple[Tensor, Tensor]:
        s = self.s_norm(s)
        return self.s_scale(s).sigmoid(), self.s_bias(s)

    def forward(self, a: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return scale * self.a_norm(a) + shift


class ConditionedTransition(nn.Module):
    """AlphaFold 3, algorithm 25."""

    def __init__(self, dim: int, cond_dim: int) -> None:
        super().__init__()
        self.adaln = AdaLN(dim, cond_dim)
        self.swish_gate = nn.Sequential(Linear(dim, 4 * dim))
        self.a_to_b = Linear(dim, 2 * dim)
        self.b_to_a = Linear(2 * dim, dim)
        self.output_projection = nn.Sequential(Linear(cond_dim, dim, bias=True), nn.Sigmoid())

    def modulation(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return *self.adaln.modulation(s), self.output_projection(s)

    def forward(self, a: Tensor, scale: Tensor, shift: Tensor, gate: Tensor) -> Tensor:
        a = self.adaln(a, scale, shift)
        x, swish = self.swish_gate(a).chunk(2, -1)
        return gate * self.b_to_a(F.silu(swish) * x * self.a_to_b(a))


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v [.., H, D] -> [.., H, D]


class ConditionedAttention(nn.Module):
    """The projections around an attention whose pair bias was computed beforehand."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.proj_q = Linear(dim, dim, bias=True)
        self.proj_k = Linear(dim, dim)
        self.proj_v = Linear(dim, dim)
        self.proj_g = Linear(dim, dim)
        self.proj_o = Linear(dim, dim)

    def forward(self, a: Float[Tensor, "M A C"], attend: Attend) -> Float[Tensor, "M A C"]:
        q, k, v = (proj(a).unflatten(-1, (self.num_heads, -1)) for proj in (self.proj_q, self.proj_k, self.proj_v))
        return self.proj_o(attend(q, k, v).flatten(-2) * self.proj_g(a).sigmoid())


class DiffusionLayer(nn.Module):
    """AlphaFold 3, algorithm 23, one block."""

    def __init__(self, dim: int, cond_dim: int, num_heads: int) -> None:
        super().__init__()
        self.adaln = AdaLN(dim, cond_dim)
        self.pair_bias_attn = ConditionedAttention(dim, num_heads)
        # One layer under two names, as in the checkpoint.
        self.output_projection_linear = Linear(cond_dim, dim, bias=True)
        self.output_projection = nn.Sequential(self.output_projection_linear, nn.Sigmoid())
        self.transition = ConditionedTransition(dim, cond_dim)

    def modulation(self, s: Float[Tensor, "*B S"]) -> Modulation:
        return Modulation((*self.adaln.modulation(s), self.output_projection(s)), self.transition.modulation(s))

    def forward(self, a: Float[Tensor, "M A C"], modulation: Modulation, attend: Attend) -> Float[Tensor, "M A C"]:
        scale, shift, gate = modulation.attention
        a = a + gate * self.pair_bias_attn(self.adaln(a, scale, shift), attend)
        return a + self.transition(a, *modulation.transition)


class DiffusionTransformer(nn.Module):
    def __init__(self, dim: int, cond_dim: int, num_blocks: int, num_heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DiffusionLayer(dim, cond_dim, num_heads) for _ in range(num_blocks))

    def modulations(self, s: Float[Tensor, "*B S"]) -> list[Modulation]:
        return [layer.modulation(s) for layer in self.layers]  # type: ignore[operator]

    def forward(
        self, a: Float[Tensor, "M A C"], modulations: Sequence[Modulation], attend: Callable[..., Tensor]
    ) -> Float[Tensor, "M A C"]:
        """`attend(layer, q, k, v)` knows the pair bias of each layer."""
        for index, (layer, modulation) in enumerate(zip(self.layers, modulations, strict=True)):
            a = layer(a, modulation, partial(attend, index))
        return a


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
        masked = MASKED * (1 - keys(atom_mask[:, None])[..., 0])[:, None, None]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "M A H D"]:
            q = queries(q.flatten(-2)).unflatten(-1, q.shape[-2:])
            k, v = (keys(x.flatten(-2)).unflatten(-1, x.shape[-2:]) for x in (k, v))
            q, k, v = (x.transpose(-2, -3) for x in (q, k, v))
            o = F.scaled_dot_product_attention(q, k, v, attn_mask=(bias[layer] + masked).to(q.dtype))
            return o.transpose(-2, -3).flatten(1, 2)

        return self.diffusion_transformer(q, modulations, attend)


class AtomEncoder(nn.Module):
    """Atoms and pairs of atoms within windows, from the reference conformers: AlphaFold 3, algorithm 5, lines 1 to 14.

    With `structure`, the trunk's single and pair representation are added.
    """

    def __init__(self, architecture: Architecture, structure: bool) -> None:
        super().__init__()
        a = architecture
        self.embed_atom_features = Linear(4 + NUM_ELEMENTS + ATOM_NAME_CHARS[0] * ATOM_NAME_CHARS[1], a.atom_s, True)
        self.embed_atompair_ref_pos = Linear(3, a.atom_z)
        self.embed_atompair_ref_dist = Linear(1, a.atom_z)
        self.embed_atompair_mask = Linear(1, a.atom_z)
        if structure:
            self.s_to_c_trans = nn.Sequential(LayerNorm(a.token_s), Linear(a.token_s, a.atom_s))
            self.z_to_p_trans = nn.Sequential(LayerNorm(a.token_z), Linear(a.token_z, a.atom_z))
        self.c_to_p_trans_k = nn.Sequential(nn.ReLU(), Linear(a.atom_s, a.atom_z))
        self.c_to_p_trans_q = nn.Sequential(nn.ReLU(), Linear(a.atom_s, a.atom_z))
        self.p_mlp = nn.Sequential(*[part for _ in range(3) for part in (nn.ReLU(), Linear(a.atom_z, a.atom_z))])

    def atoms(self, features: Features) -> Float[Tensor, "A C"]:
        """What an atom is; one-hot features times a matrix are rows of it."""
        f = features
        weight, bias = self.embed_atom_features.weight.T, self.embed_atom_features.bias
        by_number, by_element, by_chars = weight.split([4, NUM_ELEMENTS, ATOM_NAME_CHARS[0] * ATOM_NAME_CHARS[1]])
        offset = torch.arange(ATOM_NAME_CHARS[0], device=weight.device) * ATOM_NAME_CHARS[1]
        c = torch.cat([f.ref_pos, f.ref_charge[:, None]], -1).to(weight.dtype) @ by_number
        c = c + F.embedding(f.ref_element, by_element) + F.embedding(f.ref_atom_name_chars + offset, by_chars).sum(1)
        return c * f.atom_mask[:, None].to(c.dtype) + bias

    def pairs(
        self, features: Features, c: Float[Tensor, "A C"], from_tokens: Float[Tensor, "K 32 128 Z"] | None = None
    ) -> Float[Tensor, "K 32 128 Z"]:
        """Pairs of a query and a key of each window."""
        f, dtype = features, self.embed_atompair_mask.weight.dtype
        # One table of what pairs need, so that windows are cut once: position, conformer, mask.
        table = torch.cat([f.ref_pos, f.ref_space_uid[:, None].to(f.ref_pos), f.atom_mask[:, None].to(f.ref_pos)], -1)
        of_query, of_key = queries(table)[:, :, None], keys(table)[:, None]
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
    """The mean over each token's atoms; zero for padding."""
    mask = features.atom_mask.to(x.dtype)
    total = x.new_zeros((*x.shape[:-2], features.num_tokens, x.shape[-1]))
    total = total.index_add(-2, features.atom_token, x * mask[:, None])
    count = mask.new_zeros(features.num_tokens).index_add(0, features.atom_token, mask)
    return total / (count + 1e-6)[:, None]


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
            (a.atom_encoder_blocks, a.atom_heads) if structure else (a.input_atom_blocks, a.input_atom_heads)
        )
        self.atom_encoder = AtomTransformer(a.atom_s, num_blocks, num_heads)
        self.atom_to_token_trans = nn.Sequential(Linear(a.atom_s, (2 if structure else 1) * a.token_s), nn.ReLU())

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
        return self.atom_feat_to_atom_pos_update(self.atom_decoder(q, modulations, bias, features.atom_mask))
