"""Atom features: elements, charges, names, and reference conformers in random poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.chemistry.vocabulary import MAX_NAME_CHARS
from foldcp.features.tokens import TokenizedComplex
from foldcp.geometry import quaternion_to_matrix

ATOM_WINDOW = 32  # atoms are padded to a multiple of it


@dataclass(frozen=True)
class Augmentation:
    """Rigid motions of the reference conformers, (x - mean) @ rotation[u] + translation[u].

    R is the number of residues (of polymers) and components (of ligands) less one: Boltz leaves the
    last as the CCD has it.
    """

    rotation: Float[Tensor, "R 3 3"]
    translation: Float[Tensor, "R 3"]  # Å

    @staticmethod
    def draw(num_residues: int, seed: int) -> Augmentation:
        """Uniform rotations (from unit quaternions) and normal translations of unit variance.

        They are drawn on the CPU, so that they are the same on every rank.
        """
        generator = torch.Generator().manual_seed(seed)
        rotation = quaternion_to_matrix(torch.randn(num_residues - 1, 4, generator=generator))
        return Augmentation(rotation, torch.randn(num_residues - 1, 3, generator=generator))

    def move(self, x: Float[Tensor, "A 3"], residue: Int[Tensor, " A"]) -> Float[Tensor, "A 3"]:
        """Centre and move the atoms of each residue; `residue` counts from 0 to R and ascends."""
        num_moved = len(self.rotation)
        sums = torch.zeros(num_moved + 1, 3, dtype=x.dtype).index_add(0, residue, x)
        means = sums / torch.bincount(residue, minlength=num_moved + 1)[:, None]
        moves = residue < num_moved
        moved = residue[moves]
        y = torch.einsum("ad,ade->ae", x[moves] - means[moved], self.rotation.to(x)[moved])
        return torch.cat([y + self.translation.to(x)[moved], x[~moves]])


def atom_features(tokenized: TokenizedComplex, augmentation: Augmentation) -> dict[str, Tensor]:
    """The fields of `Features` along the atoms, padded to a multiple of `ATOM_WINDOW`."""
    atoms = tokenized.atoms
    residue = torch.from_numpy(atoms.residue)
    # In four columns of bytes, a short name ends with zeros; the network reads the code less 32.
    names = np.array(atoms.name, dtype=f"S{MAX_NAME_CHARS}")
    characters = names.view(np.uint8).reshape(-1, MAX_NAME_CHARS)
    shifted = np.where(characters, characters.astype(np.int64) - 32, 0)
    features = {
        "ref_pos": augmentation.move(torch.from_numpy(atoms.position).double(), residue).float(),
        "ref_charge": torch.from_numpy(atoms.charge).float(),
        "ref_element": torch.from_numpy(atoms.element),
        "ref_atom_name_chars": torch.from_numpy(shifted),
        "ref_space_uid": residue,
        "atom_mask": torch.ones(len(atoms.name)),
        "atom_token": torch.from_numpy(atoms.token),
    }
    num_padding = -len(atoms.name) % ATOM_WINDOW
    for name, x in features.items():
        padding = x.new_zeros(num_padding, *x.shape[1:])
        features[name] = torch.cat([x, padding])
    return features
