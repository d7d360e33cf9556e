"""Features of some of a complex's tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from foldcp.chemistry.vocabulary import MOL_TYPES
from foldcp.features.atoms import ATOM_WINDOW
from foldcp.features.features import Features, token_axes
from foldcp.features.layout import Layout


def crop_features(features: Features, tokens: Int[np.ndarray, " n"]) -> Features:
    """The features of some tokens, which ascend, with all of their atoms.

    Chains, residues and entities keep their numbers, and MSA rows their profile. Pairs with other
    tokens are left out. The tokens of a residue or component come together; the frames of a
    ligand's tokens are the first atoms of it that are left, as when it is whole.
    """
    layout = features.layout
    chosen = torch.from_numpy(tokens)
    atoms = np.flatnonzero(np.isin(layout.atom_token, tokens))
    new_token = _places(tokens, len(layout.token_chain))
    new_atom = _places(atoms, len(layout.atom_token))
    cropped = {
        name: _select(getattr(features, name), axis.dim, chosen)
        for name, axis in token_axes().items()
    }
    bonds, _ = _kept_pairs(features.bonds, new_token)
    contacts, is_kept = _kept_pairs(features.contacts, new_token)
    new_layout = _crop_layout(layout, tokens, atoms, new_token, new_atom)
    renumbered = torch.from_numpy(new_atom)
    frames = renumbered[cropped["frame_atoms"]]
    cropped["token_index"] = torch.arange(len(tokens))
    cropped["rep_atom"] = renumbered[cropped["rep_atom"]]
    cropped["frame_atoms"] = _frames(new_layout, frames, cropped["mol_type"])
    return replace(
        features,
        **cropped,
        **_crop_atoms(features, atoms, new_layout),
        layout=new_layout,
        bonds=bonds,
        contacts=contacts,
        contact_threshold=features.contact_threshold[is_kept],
    )


def _places(kept: Int[np.ndarray, " n"], total: int) -> Int[np.ndarray, " N"]:
    """The new number of each, -1 for what is left out."""
    places = np.full(total, -1)
    places[kept] = np.arange(len(kept))
    return places


def _select(x: Tensor, dim: int, chosen: Int[Tensor, " n"]) -> Tensor:
    """Some of the tokens of a field; what is expanded along them stays so."""
    if x.stride(dim) == 0:
        return x.narrow(dim, 0, len(chosen))
    stored = x[tuple(slice(0, 1) if not stride else slice(None) for stride in x.stride())]
    shape = [*x.shape[:dim], len(chosen), *x.shape[dim + 1 :]]
    return stored.index_select(dim, chosen).expand(shape)


def _kept_pairs(
    pairs: Int[Tensor, "E 3"], new_token: Int[np.ndarray, " N"]
) -> tuple[Int[Tensor, "e 3"], Tensor]:
    """The listed pairs of tokens that are both left, and which these are."""
    renumbered = torch.from_numpy(new_token)
    ends = renumbered[pairs[:, :2]]
    is_kept = (ends >= 0).all(1)
    return torch.cat([ends, pairs[:, 2:]], 1)[is_kept], is_kept


def _crop_layout(
    layout: Layout,
    tokens: Int[np.ndarray, " n"],
    atoms: Int[np.ndarray, " a"],
    new_token: Int[np.ndarray, " N"],
    new_atom: Int[np.ndarray, " A"],
) -> Layout:
    """The layout with fewer tokens and the same chains."""

    def of_atoms(pairs: Int[np.ndarray, "B k"]) -> Int[np.ndarray, "b k"]:
        ends = new_atom[pairs[:, :2]]
        return np.concatenate([ends, pairs[:, 2:]], 1)[(ends >= 0).all(1)]

    return replace(
        layout,
        token_chain=layout.token_chain[tokens],
        token_residue=layout.token_residue[tokens],
        token_name=[layout.token_name[i] for i in tokens.tolist()],
        atom_token=new_token[layout.atom_token[atoms]],
        atom_name=[layout.atom_name[i] for i in atoms.tolist()],
        atom_element=layout.atom_element[atoms],
        atom_charge=layout.atom_charge[atoms],
        bonds=of_atoms(layout.bonds),
        covalent=of_atoms(layout.covalent),
    )


def _frames(
    layout: Layout, frames: Int[Tensor, "n 3"], mol_type: Int[Tensor, " n"]
) -> Int[Tensor, "n 3"]:
    """Frames in the new numbers; those of a ligand are its first three atoms, if it has them."""
    frames = frames.clone()
    is_ligand = mol_type.numpy() == MOL_TYPES["ligand"]
    chain_of_atom = layout.token_chain[layout.atom_token]
    for chain in np.unique(layout.token_chain[is_ligand]).tolist():
        of_chain = torch.from_numpy(layout.token_chain == chain)
        atoms = np.flatnonzero(chain_of_atom == chain)
        if len(atoms) >= 3:
            frames[of_chain] = torch.from_numpy(atoms[[1, 0, 2]])
        else:
            first = np.searchsorted(layout.atom_token, np.flatnonzero(of_chain))
            frames[of_chain] = torch.from_numpy(first)[:, None].expand(-1, 3)
    return frames


def _crop_atoms(
    features: Features, atoms: Int[np.ndarray, " a"], layout: Layout
) -> dict[str, Tensor]:
    """The fields along the atoms, padded to a multiple of `ATOM_WINDOW`."""
    chosen = torch.from_numpy(atoms)
    names = ("ref_pos", "ref_charge", "ref_element", "ref_atom_name_chars", "ref_space_uid")
    cropped = {name: getattr(features, name)[chosen] for name in (*names, "atom_mask")}
    cropped["atom_token"] = torch.from_numpy(layout.atom_token)
    num_padding = -len(atoms) % ATOM_WINDOW
    return {
        name: torch.cat([x, x.new_zeros(num_padding, *x.shape[1:])]) for name, x in cropped.items()
    }
