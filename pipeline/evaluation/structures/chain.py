"""Chains of a structure, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

Kind = Literal["protein", "dna", "rna", "ligand"]
# The atom that stands for a residue: as TM-align and US-align choose it.
TRACE_ATOMS = {"protein": "CA", "dna": "C3'", "rna": "C3'"}


@dataclass(frozen=True, eq=False)
class Chain:
    """A polymer or a ligand: L residues of its sequence, resolved or not, and A heavy atoms.

    `letters` has one letter a residue, for a modified one that of its parent, X for an unknown one.
    Atoms are in the order of their residues.
    """

    name: str
    kind: Kind
    codes: tuple[str, ...]  # component of each residue
    letters: str
    atom_residue: Int[np.ndarray, " A"]
    atom_names: np.ndarray  # [A] str
    elements: np.ndarray  # [A] str, in upper case
    coords: Float[np.ndarray, "A 3"]  # Å

    @cached_property
    def tree(self) -> KDTree:
        """The atoms, to be searched by distance."""
        return KDTree(self.coords)

    @cached_property
    def box(self) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
        """The least and the largest coordinates."""
        return self.coords.min(axis=0), self.coords.max(axis=0)

    @cached_property
    def num_resolved(self) -> int:
        """Residues with an atom."""
        return len(np.unique(self.atom_residue))

    @property
    def is_polymer(self) -> bool:
        """Whether it is no ligand."""
        return self.kind != "ligand"


@dataclass(frozen=True, eq=False)
class Structure:
    """The chains of a structure in the order of their file; `bonds` are those within components
    that the file tells, as pairs of atom names by code.
    """

    chains: tuple[Chain, ...]
    bonds: Mapping[str, frozenset[tuple[str, str]]]
