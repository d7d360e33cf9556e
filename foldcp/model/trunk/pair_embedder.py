"""The pair embedder: relative positions, bonds and contacts, from the features alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from foldcp.config import NUM_BOND_TYPES, NUM_CONTACT_KINDS, Architecture
from foldcp.features.features import Features
from foldcp.model.layers.layers import Embedding, FourierEmbedding, Linear

R_MAX = 32  # distances along the chain and between tokens are clipped to it
S_MAX = 2  # differences between copies are clipped to it
NUM_DISTANCES = 2 * R_MAX + 2  # the last: in another chain, or another residue
NUM_COPIES = 2 * S_MAX + 2  # the last: not copies of each other
NON_CYCLIC_PERIOD = 10000  # residues


class RelativePosition(nn.Module):
    """Distance along the chain, within the residue and between copies, one-hot and projected:
    AlphaFold 3, algorithm 3.

    A one-hot vector times a matrix is a row of the matrix, and there are few combinations of the
    features: nothing one-hot is made, and the sum of a pair's rows is looked up.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.fix_sym_check = architecture.fix_sym_check
        self.cyclic_pos_enc = architecture.cyclic_pos_enc
        self.sizes = [NUM_DISTANCES, NUM_DISTANCES, 1, NUM_COPIES]
        self.linear_layer = Linear(sum(self.sizes), architecture.token_z)

    def forward(self, features: Features, rows: slice) -> Float[Tensor, "R N C"]:
        return F.embedding(self._combination(features, rows), self._sums())

    def _sums(self) -> Float[Tensor, "T C"]:
        """Of each combination of position, entity (other, same) and copy, in this order. A position
        is a distance between residues, or one between tokens of the same residue.
        """
        of_residue, of_token, of_entity, of_copy = self.linear_layer.weight.T.split(self.sizes)
        of_position = torch.cat([of_residue + of_token[-1], of_residue[R_MAX] + of_token])
        of_entity = torch.cat([torch.zeros_like(of_entity), of_entity])
        return (of_position[:, None, None] + of_entity[:, None] + of_copy).flatten(0, 2)

    def _combination(self, f: Features, rows: slice) -> Int[Tensor, "R N"]:
        """Of each pair, its place in `_sums`."""
        same_chain = f.asym_id[rows, None] == f.asym_id
        same_residue = same_chain & (f.residue_index[rows, None] == f.residue_index)
        same_entity = f.entity_id[rows, None] == f.entity_id
        residue = _clip(self._along_chain(f, rows), R_MAX)
        residue = torch.where(same_chain, residue, NUM_DISTANCES - 1)
        token = _clip(f.token_index[rows, None] - f.token_index, R_MAX)
        position = torch.where(same_residue, NUM_DISTANCES + token, residue)
        not_copies = ~same_entity if self.fix_sym_check else same_chain
        copy = _clip(f.sym_id[rows, None] - f.sym_id, S_MAX)
        copy = torch.where(not_copies, NUM_COPIES - 1, copy)
        return (2 * position + same_entity) * NUM_COPIES + copy

    def _along_chain(self, f: Features, rows: slice) -> Int[Tensor, "R N"]:
        distance = f.residue_index[rows, None] - f.residue_index
        if not self.cyclic_pos_enc:
            return distance
        cyclic = f.cyclic_period > 0
        period = torch.where(cyclic, f.cyclic_period, NON_CYCLIC_PERIOD)
        around = (distance - period * torch.round(distance / period)).long()
        return torch.where(cyclic.any(), around, distance)


def _clip(distance: Int[Tensor, "R N"], max_distance: int) -> Int[Tensor, "R N"]:
    return (distance + max_distance).clamp(0, 2 * max_distance)


class ContactConditioning(nn.Module):
    """The user's contacts and pockets; every pair that has none gets one learnt vector."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.cutoff_min = architecture.contact_cutoff_min
        self.cutoff_max = architecture.contact_cutoff_max
        dim = architecture.token_z
        self.fourier_embedding = FourierEmbedding(dim)
        self.encoder = Linear(dim + NUM_CONTACT_KINDS - 1, dim, bias=True)
        self.encoding_unspecified = nn.Parameter(torch.empty(dim))
        self.encoding_unselected = nn.Parameter(torch.empty(dim))

    def default(self, features: Features) -> Float[Tensor, " C"]:
        """The vector of the pairs that are in no list."""
        return (self.encoding_unspecified, self.encoding_unselected)[features.contact_default]

    def forward(self, features: Features) -> Float[Tensor, "K C"]:
        """The vectors of the listed pairs."""
        kind = F.one_hot(features.contacts[:, 2].long(), NUM_CONTACT_KINDS)[:, 2:]
        threshold = (features.contact_threshold - self.cutoff_min) / (
            self.cutoff_max - self.cutoff_min
        )
        fourier = self.fourier_embedding(threshold)
        return self.encoder(
            torch.cat([kind.to(fourier), threshold[:, None].to(fourier), fourier], -1)
        )


class PairEmbedding:
    """Relative positions, bonds and contacts of some rows, from O(N) features.

    Not a module: checkpoints hold its parameters among those of the trunk and again among those of
    the confidence module, so `register` gives its parts to the module that uses it.
    """

    def __init__(self, architecture: Architecture) -> None:
        dim = architecture.token_z
        self.rel_pos = RelativePosition(architecture)
        self.token_bonds = Linear(1, dim)
        self.token_bonds_type = Embedding(NUM_BOND_TYPES, dim) if architecture.bond_types else None
        self.contact_conditioning = ContactConditioning(architecture)

    def register(self, parent: nn.Module) -> None:
        """Make its parts modules of `parent`, under the names of the checkpoint."""
        parent.rel_pos = self.rel_pos
        parent.token_bonds = self.token_bonds
        if self.token_bonds_type is not None:
            parent.token_bonds_type = self.token_bonds_type
        parent.contact_conditioning = self.contact_conditioning

    def __call__(self, features: Features, rows: slice) -> Float[Tensor, "R N C"]:
        """Rows `rows` (of all N) of relative positions + bonds + contacts."""
        pairs = self.rel_pos(features, rows)
        default = self.contact_conditioning.default(features)
        pairs += default
        bond = self.token_bonds.weight[:, 0].expand(len(features.bonds), -1)
        if self.token_bonds_type is not None:
            by_type = self.token_bonds_type.weight
            pairs += by_type[0]
            bond = bond + by_type[features.bonds[:, 2]] - by_type[0]
        _add_listed_(pairs, features.bonds, bond, rows)
        if len(features.contacts):
            contact = self.contact_conditioning(features) - default
            _add_listed_(pairs, features.contacts, contact, rows)
        return pairs


def _add_listed_(
    pairs: Float[Tensor, "R N C"],
    listed: Int[Tensor, "K 3"],
    values: Float[Tensor, "K C"],
    rows: slice,
) -> None:
    """pairs[i - start, j] += value of each listed (i, j) whose i lies in `rows`; 0 is added for the
    others, since choosing them would make a GPU wait for the CPU.
    """
    in_rows = (listed[:, 0] >= rows.start) & (listed[:, 0] < rows.stop)
    i = (listed[:, 0] - rows.start).clamp(0, rows.stop - rows.start - 1)
    values = (values * in_rows[:, None]).to(pairs.dtype)
    pairs.index_put_((i, listed[:, 1]), values, accumulate=True)
