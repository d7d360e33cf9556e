"""Atoms as the network reads them: elements, charges, names, and reference conformers in random
poses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.chemistry.vocabulary import MAX_NAME_CHARS
from foldcp.features.tokens import Tables
from foldcp.geometry import quaternion_to_matrix

ATOM_WINDOW = 32  # atoms are padded to a multiple of it


@dataclass(frozen=True)
class Augmentation:
    """Rigid motions of the reference conformers: residue u becomes (x - mean) @ rotation[u] +
    translation[u].

    R is the number of residues (of polymers) and components (of ligands) less one: Boltz leaves the
    last as the CCD has it.
    """

    rotation: Float[Tensor, "R 3 3"]
    translation: Float[Tensor, "R 3"]  # Å

    @staticmethod
    def draw(num_residues: int, seed: int) -> Augmentation:
        """Uniform rotations (unit quaternions) and unit normal translations, on the CPU: the
        same on every rank.
        """
        generator = torch.Generator().manual_seed(seed)
        quaternion = torch.randn(num_residues - 1, 4, generator=generator)
        rotation = quaternion_to_matrix(quaternion)
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


def atom_features(parts: Tables, augmentation: Augmentation) -> dict[str, Tensor]:
    """The fields of `Features` along the atoms, padded with zeros to a multiple of
    `ATOM_WINDOW`.
    """
    atoms = parts.atoms
    residue = torch.from_numpy(atoms.residue)
    # As bytes of four columns, the end of a short name is 0; what the network reads is the code
    # less 32.
    characters = (
        np.array(atoms.name, dtype=f"S{MAX_NAME_CHARS}").view(np.uint8).reshape(-1, MAX_NAME_CHARS)
    )
    features = {
        "ref_pos": augmentation.move(torch.from_numpy(atoms.position).double(), residue).float(),
        "ref_charge": torch.from_numpy(atoms.charge).float(),
        "ref_element": torch.from_numpy(atoms.element),
        "ref_atom_name_chars": torch.from_numpy(
            np.where(characters, characters.astype(np.int64) - 32, 0)
        ),
        "ref_space_uid": residue,
        "atom_mask": torch.ones(len(atoms.name)),
        "atom_token": torch.from_numpy(atoms.token),
    }
    extra = -len(atoms.name) % ATOM_WINDOW
    return {name: torch.cat([x, x.new_zeros(extra, *x.shape[1:])]) for name, x in features.items()}
