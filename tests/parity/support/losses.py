"""Features and truth as far as losses read them, from a case of Boltz's losses."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from foldcp.features.features import Features
from foldcp.features.layout import Layout
from foldcp.training.example import Symmetries, Truth


def features_of_case(f: dict[str, Tensor], multiple: int) -> Features:
    """Features whose other fields are empty, with the tokens padded to a multiple."""
    T = len(f["token_pad_mask"])
    extra = -T % multiple

    def tokens(name: str) -> Tensor:
        x = f[name].long()
        return pad(x, [0, 0] * (x.dim() - 1) + [0, extra])

    asym_id = f["asym_id"].long().numpy()
    num_atoms = int(f["atom_pad_mask"].sum())
    known: dict[str, Any] = {each.name: torch.zeros(0) for each in fields(Features)}
    known |= {
        "layout": layout_of(asym_id, f["atom_token"].long()[:num_atoms].numpy()),
        "mol_type": tokens("mol_type"),
        "asym_id": tokens("asym_id"),
        "rep_atom": tokens("rep_atom"),
        "frame_atoms": tokens("frame_atoms"),
        "token_mask": pad(f["token_pad_mask"].float(), (0, extra)),
        "atom_mask": f["atom_pad_mask"].float(),
        "atom_token": f["atom_token"].long(),
    }
    return Features(**known)


def layout_of(token_chain: np.ndarray, atom_token: np.ndarray) -> Layout:
    """Which tokens and atoms are of which chain; nothing else."""
    known: dict[str, Any] = {each.name: [] for each in fields(Layout)}
    return Layout(**(known | {"token_chain": token_chain, "atom_token": atom_token}))


def truth_of_case(f: dict[str, Tensor], found: dict[str, Any], dtype: torch.dtype) -> Truth:
    coords = f["coords"].to(dtype)
    resolved = f["atom_resolved_mask"].to(dtype)
    num_atoms = int(f["atom_pad_mask"].sum())
    symmetries = Symmetries(
        coords=coords[0, :num_atoms],
        resolved=resolved[:num_atoms],
        atoms=torch.arange(num_atoms),
        chains=[
            [(start, stop, other) for start, stop, other, *_ in swaps] for swaps in found["chains"]
        ],
        residues=[
            [np.array(swaps) for swaps in alternatives] for alternatives in found["residues"]
        ],
    )
    return Truth(
        conformers=coords,
        resolved=resolved,
        bfactors=f["bfactor"].to(dtype),
        lddt_atoms=f["lddt_atoms"].long(),
        symmetries=symmetries,
    )
