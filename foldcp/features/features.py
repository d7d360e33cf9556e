"""Features: the input of the network, O(N) in size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.chemistry.vocabulary import GAP
from foldcp.features.layout import Layout


@dataclass(frozen=True)
class TokenAxis:
    """Padding of a field along the tokens: the axis, and the value of padding."""

    dim: int
    padding: int = 0


_AXIS = "token_axis"
# Metadata of the fields that `Features.pad` extends.
_TOKENS: Mapping[str, TokenAxis] = {_AXIS: TokenAxis(0)}  # [N, ..]
_ROWS_OF_TOKENS: Mapping[str, TokenAxis] = {_AXIS: TokenAxis(1)}  # [S, N, ..] or [T, N, ..]
_MSA: Mapping[str, TokenAxis] = {_AXIS: TokenAxis(1, padding=GAP)}


@dataclass(frozen=True, eq=False)
class Features:
    """One complex as the network reads it.

    N tokens (padded), S MSA rows, A atoms (padded to 32), T templates, E bonds, K contacts. Each
    rank builds its own rows of anything quadratic.

    Where a token or an atom is padding, an index field holds 0 and `msa` the gap; Boltz's one-hot
    vectors are all zero there, so whoever makes one-hots multiplies them by the mask. `msa_mask`,
    and the deletions of an MSA without any, are expanded tensors that occupy a row or nothing.
    """

    layout: Layout
    # tokens
    res_type: Int[Tensor, " N"] = field(metadata=_TOKENS)  # index in the 33-word vocabulary
    mol_type: Int[Tensor, " N"] = field(metadata=_TOKENS)  # 0 protein, 1 DNA, 2 RNA, 3 other
    token_index: Int[Tensor, " N"] = field(metadata=_TOKENS)
    residue_index: Int[Tensor, " N"] = field(metadata=_TOKENS)  # from 0
    asym_id: Int[Tensor, " N"] = field(metadata=_TOKENS)  # chain
    entity_id: Int[Tensor, " N"] = field(metadata=_TOKENS)  # molecule
    sym_id: Int[Tensor, " N"] = field(metadata=_TOKENS)  # copy of the molecule
    # length of a cyclic chain, 0 for the others
    cyclic_period: Float[Tensor, " N"] = field(metadata=_TOKENS)
    modified: Int[Tensor, " N"] = field(metadata=_TOKENS)
    method: Int[Tensor, " N"] = field(metadata=_TOKENS)  # experimental method, see `METHODS`
    token_mask: Float[Tensor, " N"] = field(metadata=_TOKENS)  # 1 token, 0 padding
    # the token's representative atom (CB; CA of glycine; C4/C2 of a base; the atom)
    rep_atom: Int[Tensor, " N"] = field(metadata=_TOKENS)
    # the three atoms of the token's frame (N, CA, C; C1', C3', C4')
    frame_atoms: Int[Tensor, "N 3"] = field(metadata=_TOKENS)
    # pairs of tokens, as lists
    bonds: Int[Tensor, "E 3"]  # (i, j, bond type + 1); both directions are listed
    contacts: Int[Tensor, "K 3"]  # (i, j, kind of contact); both directions are listed
    contact_threshold: Float[Tensor, " K"]  # Å
    contact_default: int  # kind of every pair that is not listed: 0 unspecified, 1 unselected
    # MSA
    msa: Int[Tensor, "S N"] = field(metadata=_MSA)  # int8, index in the 33-word vocabulary
    has_deletion: Bool[Tensor, "S N"] = field(metadata=_ROWS_OF_TOKENS)
    deletion_value: Float[Tensor, "S N"] = field(metadata=_ROWS_OF_TOKENS)
    paired: Bool[Tensor, "S N"] = field(metadata=_ROWS_OF_TOKENS)
    msa_mask: Float[Tensor, "S N"] = field(metadata=_ROWS_OF_TOKENS)
    profile: Float[Tensor, "N 33"] = field(metadata=_TOKENS)
    deletion_mean: Float[Tensor, " N"] = field(metadata=_TOKENS)
    # atoms
    ref_pos: Float[Tensor, "A 3"]  # Å
    ref_charge: Float[Tensor, " A"]
    ref_element: Int[Tensor, " A"]  # atomic number, 0..127
    ref_atom_name_chars: Int[Tensor, "A 4"]  # character - 32, 0..63
    ref_space_uid: Int[Tensor, " A"]  # equal for the atoms of one conformer
    atom_mask: Float[Tensor, " A"]
    atom_token: Int[Tensor, " A"]  # index of the token; 0 for padding, where atom_mask is 0
    # templates
    template_res_type: Int[Tensor, "T N"] = field(metadata=_ROWS_OF_TOKENS)
    template_frame_rot: Float[Tensor, "T N 3 3"] = field(metadata=_ROWS_OF_TOKENS)
    template_frame_t: Float[Tensor, "T N 3"] = field(metadata=_ROWS_OF_TOKENS)
    template_cb: Float[Tensor, "T N 3"] = field(metadata=_ROWS_OF_TOKENS)
    template_ca: Float[Tensor, "T N 3"] = field(metadata=_ROWS_OF_TOKENS)
    template_mask_cb: Float[Tensor, "T N"] = field(metadata=_ROWS_OF_TOKENS)
    template_mask_frame: Float[Tensor, "T N"] = field(metadata=_ROWS_OF_TOKENS)
    template_mask: Float[Tensor, "T N"] = field(metadata=_ROWS_OF_TOKENS)
    # tokens of one group see each other
    template_visibility: Int[Tensor, "T N"] = field(metadata=_ROWS_OF_TOKENS)
    # whether a steering potential holds the prediction to the template
    template_force: Bool[Tensor, " T"]
    template_force_threshold: Float[Tensor, " T"]  # Å, infinite without force

    @property
    def num_tokens(self) -> int:
        """Tokens, padding included."""
        return self.token_mask.shape[0]

    @property
    def num_atoms(self) -> int:
        """Atoms, padding included."""
        return self.atom_mask.shape[0]

    @property
    def num_msa_rows(self) -> int:
        """Rows of the MSA."""
        return self.msa.shape[0]

    def pad(self, multiple: int) -> Features:
        """These features with the number of tokens padded to a multiple; mask 0 there."""
        return self.pad_to(self.num_tokens + -self.num_tokens % multiple)

    def pad_to(self, num_tokens: int) -> Features:
        """These features padded to so many tokens; mask 0 there."""
        extra = num_tokens - self.num_tokens
        padded = {
            name: _pad(x, axis, extra)
            for name, axis in _TOKEN_AXES.items()
            if isinstance(x := getattr(self, name), Tensor)
        }
        return replace(self, **padded)

    def to(self, device: torch.device | str) -> Features:
        """These features on a device."""
        moved = {
            each.name: _stored(x).to(device).expand(x.shape)
            for each in fields(self)
            if isinstance(x := getattr(self, each.name), Tensor)
        }
        return replace(self, **moved)


_TOKEN_AXES: dict[str, TokenAxis] = {
    each.name: each.metadata[_AXIS] for each in fields(Features) if _AXIS in each.metadata
}


def token_axes() -> Mapping[str, TokenAxis]:
    """The fields of `Features` along the tokens."""
    return _TOKEN_AXES


def _stored(x: Tensor) -> Tensor:
    """The part of an expanded tensor that memory holds; `expand` gives the whole again."""
    return x[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in x.stride())]


def _pad(x: Tensor, axis: TokenAxis, extra: int) -> Tensor:
    dim = axis.dim
    stored = _stored(x)
    if stored.shape[dim] == x.shape[dim]:  # else it is expanded from the value of padding
        padding_shape = [*stored.shape[:dim], extra, *stored.shape[dim + 1 :]]
        padding = stored.new_full(padding_shape, axis.padding)
        stored = torch.cat([stored, padding], dim)
    return stored.expand(*x.shape[:dim], x.shape[dim] + extra, *x.shape[dim + 1 :])
