"""A predicted chain and the chain of the reference that it is: their common residues and atoms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from foldcp.pipeline.evaluation.matching.alignment import Alignment
from foldcp.pipeline.evaluation.structures.chain import TRACE_ATOMS, Chain

# DockQ's backbone, of proteins and of nucleic acids.
BACKBONE = (
    "N", "CA", "C", "O",
    "P", "OP1", "OP2", "O2'", "O3'", "O4'", "O5'", "C1'", "C2'", "C3'", "C4'", "C5'",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class ChainPair:
    """A polymer of a prediction and one of the reference: M aligned residues, K common atoms."""

    model: Chain
    reference: Chain
    alignment: Alignment

    @cached_property
    def _atoms(self) -> tuple[Int[np.ndarray, " K"], Int[np.ndarray, " K"]]:
        """The atoms of each chain that the other one has, too, by residue and name."""
        names = np.unique(np.concatenate([self.model.atom_names, self.reference.atom_names]))
        keys = [
            columns[chain.atom_residue] * len(names) + np.searchsorted(names, chain.atom_names)
            for columns, chain in (
                (self.column_of_model, self.model),
                (self.column_of_reference, self.reference),
            )
        ]
        known = [np.flatnonzero(key >= 0) for key in keys]
        of_known = [key[index] for key, index in zip(keys, known, strict=True)]
        _, first, second = np.intersect1d(*of_known, assume_unique=True, return_indices=True)
        return known[0][first], known[1][second]

    @cached_property
    def column_of_model(self) -> Int[np.ndarray, " L"]:
        """The column of the alignment of each residue of the predicted chain; -1: none."""
        return _columns(self.alignment.model, len(self.model.codes))

    @cached_property
    def column_of_reference(self) -> Int[np.ndarray, " L"]:
        """The column of the alignment of each residue of the reference's chain; -1: none."""
        return _columns(self.alignment.reference, len(self.reference.codes))

    @cached_property
    def common_of_reference(self) -> Int[np.ndarray, " A"]:
        """The common atom that each atom of the reference's chain is; -1: none."""
        common = np.full(len(self.reference.coords), -1)
        common[self._atoms[1]] = np.arange(len(self._atoms[1]))
        return common

    @cached_property
    def atom_column(self) -> Int[np.ndarray, " K"]:
        """The column of the alignment of each common atom."""
        return self.column_of_reference[self.reference.atom_residue[self._atoms[1]]]

    @cached_property
    def atom_names(self) -> np.ndarray:
        """Names of the common atoms."""
        return self.reference.atom_names[self._atoms[1]]

    @cached_property
    def model_coords(self) -> Float[np.ndarray, "K 3"]:
        """The common atoms, as predicted, in Å."""
        return self.model.coords[self._atoms[0]]

    @cached_property
    def reference_coords(self) -> Float[np.ndarray, "K 3"]:
        """The common atoms in the reference, in Å."""
        return self.reference.coords[self._atoms[1]]

    @cached_property
    def is_trace(self) -> Bool[np.ndarray, " K"]:
        """The atoms that stand for residues."""
        return self.atom_names == TRACE_ATOMS[self.reference.kind]

    @cached_property
    def is_backbone(self) -> Bool[np.ndarray, " K"]:
        """The backbone atoms of residues that are identical in both."""
        identical = self.alignment.identical[self.atom_column]
        return identical & np.isin(self.atom_names, BACKBONE)

    @cached_property
    def is_common(self) -> Bool[np.ndarray, " M"]:
        """The columns of identical residues that both chains have an atom of."""
        found = np.zeros(len(self.alignment.identical), dtype=bool)
        found[self.atom_column] = True
        return found & self.alignment.identical

    @cached_property
    def num_common(self) -> int:
        """Aligned residues that both chains have an atom of."""
        return len(np.unique(self.atom_column))


def _columns(positions: Int[np.ndarray, " M"], length: int) -> Int[np.ndarray, " L"]:
    columns = np.full(length, -1)
    columns[positions] = np.arange(len(positions))
    return columns
