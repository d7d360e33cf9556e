"""Training example: the features of a complex, and its experimental structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.features.features import Features

# of `Features.mol_type`
PROTEIN = 0
LIGAND = 3

# A chain takes the coordinates of another one: its first atom, the atom after its last, and the
# first atom of the other, among all atoms of the structure.
ChainSwap = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Symmetries:
    """Ways to assign the structure's atoms to the example's, all equally true.

    The structure has B atoms, which may be more than the example's: copies of a cropped chain that
    lie outside the crop.
    """

    coords: Float[Tensor, "B 3"]  # Å
    resolved: Float[Tensor, " B"]
    atoms: Int[Tensor, " R"]  # the example's atoms, without padding, among the structure's
    chains: Sequence[Sequence[ChainSwap]]  # assignments of chains, each with all of its swaps
    # Of every residue or ligand with symmetric atoms, its symmetries: (atom, atom that it takes the
    # coordinates of), as numbers of the example's atoms.
    residues: Sequence[Sequence[Int[np.ndarray, "n 2"]]]


@dataclass(frozen=True, eq=False)
class Truth:
    """The experimental structure of a complex, in the order of its `Features`.

    A atoms (padded as the features), K conformers with the same atoms resolved. What is not
    resolved, and padding, has coordinates 0. At least one atom is resolved.
    """

    conformers: Float[Tensor, "K A 3"]  # Å
    resolved: Float[Tensor, " A"]  # 1 where the atom was observed
    bfactors: Float[Tensor, " A"]  # Å²; 0 where there is none, as in a predicted structure
    # The atoms to which lDDT is measured for the confidence: CA and C1' of resolved residues of
    # polymers.
    lddt_atoms: Int[Tensor, " R"]
    symmetries: Symmetries | None = None

    @property
    def coords(self) -> Float[Tensor, "A 3"]:
        """The first conformer, in Å."""
        return self.conformers[0]

    def to(self, device: torch.device | str) -> Truth:
        """The truth on a device; symmetries are moved as they are used."""
        moved = {
            each.name: x.to(device)
            for each in fields(self)
            if isinstance(x := getattr(self, each.name), Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class TrainingExample:
    """One complex, or a crop of one, to train on: the same on every rank."""

    features: Features
    truth: Truth
    name: str = ""

    def centered(self) -> TrainingExample:
        """The example with the centre of what is resolved at the origin, where all else lies.

        The noise of a step is added to all atoms; those that are not resolved would otherwise lie
        as far from the structure as its file has the origin.
        """
        truth = self.truth
        resolved = truth.resolved[:, None]
        center = (truth.conformers * resolved).sum(1, keepdim=True) / resolved.sum()
        conformers = (truth.conformers - center) * resolved
        return replace(self, truth=replace(truth, conformers=conformers))

    def pad(self, multiple: int) -> TrainingExample:
        """The example with the number of tokens padded to a multiple."""
        return replace(self, features=self.features.pad(multiple))

    def to(self, device: torch.device | str) -> TrainingExample:
        """The example on a device."""
        return replace(self, features=self.features.to(device), truth=self.truth.to(device))


def lddt_atoms(features: Features, resolved: Float[Tensor, " A"]) -> Int[Tensor, " R"]:
    """`Truth.lddt_atoms`: CA of proteins and C1' of nucleic acids, of residues that have them
    resolved (Boltz: `r_set_to_rep_atom`).
    """
    frames = features.frame_atoms
    is_protein = features.mol_type == PROTEIN
    center = torch.where(is_protein, frames[:, 1], frames[:, 0])
    of_polymers = (features.mol_type < LIGAND) & (features.token_mask > 0)
    return center[of_polymers & (resolved[center] > 0)]
