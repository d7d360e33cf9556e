"""Experimental structures to train on, as plain arrays. Without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from foldcp.complex import Kind


@dataclass(frozen=True, eq=False)
class ExperimentalChain:
    """A polymer or a ligand: L residues, resolved or not, and its A observed heavy atoms.

    Atoms are in the order of their residues, each atom of a residue once.
    """

    name: str
    kind: Kind
    codes: tuple[str, ...]  # [L] component of each residue
    # [L] letter of each residue of a polymer, that of its parent for a modified one; else empty
    letters: str
    atom_residue: Int[np.ndarray, " A"]  # from 0
    atom_names: tuple[str, ...]  # [A]
    coords: Float[np.ndarray, "A 3"]  # Å, float32
    bfactors: Float[np.ndarray, " A"]  # Å², float32

    @property
    def num_residues(self) -> int:
        """Residues, resolved or not."""
        return len(self.codes)

    @property
    def num_resolved(self) -> int:
        """Residues with an observed atom."""
        return len(np.unique(self.atom_residue))


# A covalent bond between two residues: (chain name, residue from 0, atom name) of both ends.
BondEnd = tuple[str, int, str]


@dataclass(frozen=True, eq=False)
class ExperimentalStructure:
    """An assembly or an asymmetric unit, with what its file says of the experiment."""

    name: str
    chains: tuple[ExperimentalChain, ...]
    bonds: tuple[tuple[BondEnd, BondEnd], ...] = ()
    resolution: float | None = None  # Å
    date: str = ""  # of the release, else of the deposition: YYYY-MM-DD
    method: str = ""  # as the mmCIF dictionary spells it, in lower case
    assembly: str = ""  # empty: the asymmetric unit

    @property
    def num_residues(self) -> int:
        """Residues of polymers, resolved or not."""
        return sum(chain.num_residues for chain in self.chains if chain.kind != "ligand")
