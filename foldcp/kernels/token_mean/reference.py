"""The mean over each token's atoms; the PyTorch reference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

EPSILON = 1e-6  # added to the number of atoms, as Boltz does


class TokenMean:
    """The mean of relu(x) over the atoms of each token, in fp32 (or better); zero for padding.

    Summed in order: `index_add` on a GPU adds in any order, and no two predictions would be the
    same. Source: AlphaFold 3, algorithm 5, line 16.
    """

    def __call__(
        self,
        x: Float[Tensor, "*M A C"],
        atom_mask: Float[Tensor, " A"],
        first_atom: Int[Tensor, " E"],
        num_atoms: Int[Tensor, "N 1"],
    ) -> Float[Tensor, "*M N C"]:
        """A token has `num_atoms` atoms from its `first_atom` on, and before the next token's (E =
        N + 1) there may be padding, which the mask excludes.
        """
        precise = torch.promote_types(x.dtype, torch.float32)
        rectified = F.relu(x).to(precise) * (atom_mask > 0)[:, None]
        by_atom = rectified.movedim(-2, 0)
        total = torch.segment_reduce(by_atom.flatten(1), "sum", offsets=first_atom, unsafe=True)
        mean = total / (num_atoms + EPSILON)
        return mean.unflatten(1, by_atom.shape[1:]).movedim(0, -2)
