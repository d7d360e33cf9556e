"""The input embedder: each token from its atoms, its type and its alignment column. O(N), whole
on every rank.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.config import NUM_METHODS, NUM_MOL_TYPES, NUM_RES_TYPES, Architecture
from foldcp.features.features import Features
from foldcp.model.layers.atoms import AtomAttentionEncoder, AtomEncoder, AtomTokens
from foldcp.model.layers.layers import Embedding, LayerNorm, Linear


class InputEmbedder(nn.Module):
    """AlphaFold 3, algorithm 2, with Boltz-2's additions (method, modification, cyclic chain,
    kind of molecule).
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        self.num_blocks = a.input_atom_blocks
        self.atom_encoder = AtomEncoder(a, structure=False)
        self.atom_enc_proj_z = nn.Sequential(
            LayerNorm(a.atom_z),
            Linear(a.atom_z, a.input_atom_blocks * a.input_atom_heads),
        )
        self.atom_attention_encoder = AtomAttentionEncoder(a, structure=False)
        self.res_type_encoding = Linear(NUM_RES_TYPES, a.token_s)
        self.msa_profile_encoding = Linear(NUM_RES_TYPES + 1, a.token_s)
        self.method_conditioning_init = Embedding(NUM_METHODS, a.token_s)
        self.modified_conditioning_init = Embedding(2, a.token_s)
        self.cyclic_conditioning_init = Linear(1, a.token_s)
        self.mol_type_conditioning_init = Embedding(NUM_MOL_TYPES, a.token_s)

    def forward(self, features: Features) -> Float[Tensor, "N C"]:
        f = features
        c = self.atom_encoder.atoms(f)
        bias = self.atom_enc_proj_z(self.atom_encoder.pairs(f, c))
        bias = bias.unflatten(-1, (self.num_blocks, -1)).permute(3, 0, 4, 1, 2)
        modulations = self.atom_attention_encoder.atom_encoder.modulations(c)
        a, _ = self.atom_attention_encoder(c[None], modulations, bias, AtomTokens.of(f))
        profile = torch.cat([f.profile, f.deletion_mean[:, None]], -1)
        return (
            a[0]
            + F.embedding(f.res_type, self.res_type_encoding.weight.T)
            + self.msa_profile_encoding(profile)
            + self.method_conditioning_init(f.method)
            + self.modified_conditioning_init(f.modified)
            + self.cyclic_conditioning_init(f.cyclic_period.clamp(max=1.0)[:, None])
            + self.mol_type_conditioning_init(f.mol_type)
        )
