"""Alignment of the sequences of predicted chains to those of a reference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from biotite.sequence import NucleotideSequence, ProteinSequence
from biotite.sequence.align import (
    SubstitutionMatrix,
    align_optimal,  # pyright: ignore[reportAttributeAccessIssue]
)
from jaxtyping import Bool, Int

from foldcp.pipeline.evaluation.structures.chain import Chain

GAP_PENALTY = (-11, -1)  # opening and extending, as in BLAST
MIN_COVERAGE = 0.7  # aligned residues, as a share of the shorter sequence
# Sequences that are as alike as these limits say share short words; others are not aligned.
WORD_LENGTHS = {"protein": 3, "dna": 6, "rna": 6}
MIN_SHARED_WORDS = 0.05
SHORT = 30  # residues; shorter sequences are always aligned
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
BASES = "ACGT"
Residues = tuple[str, tuple[str, ...]]  # letters, components


@dataclass(frozen=True, eq=False)
class Alignment:
    """M residues of a predicted chain (`model`) and those of the reference's that they are.

    `identical` says where both are the same component, or modifications of the same one.
    """

    model: Int[np.ndarray, " M"]
    reference: Int[np.ndarray, " M"]
    identical: Bool[np.ndarray, " M"]

    @property
    def identity(self) -> float:
        """Identical residues as a share of the aligned ones."""
        return float(self.identical.mean()) if len(self.identical) else 0.0


def align(model: Chain, reference: Chain) -> Alignment | None:
    """The global alignment without penalty for gaps at the ends; None for sequences that are not
    alike, see `MIN_COVERAGE`, and for chains of different kinds.
    """
    if model.kind != reference.kind or not model.is_polymer:
        return None
    return _align(model.kind, (model.letters, model.codes), (reference.letters, reference.codes))


@lru_cache(maxsize=65_536)
def _align(kind: str, model: Residues, reference: Residues) -> Alignment | None:
    """The alignment of residues, given as letters and components."""
    columns = _aligned(kind, model[0], reference[0])
    if columns is None:
        return None
    rows, others = columns
    letters, codes = (np.array(list(residues))[rows] for residues in model)
    other_letters, other_codes = (np.array(list(residues))[others] for residues in reference)
    identical = ((letters == other_letters) & (letters != "X")) | (codes == other_codes)
    return Alignment(rows, others, identical)


def _aligned(
    kind: str, model: str, reference: str
) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " M"]] | None:
    """Positions of aligned residues in both sequences."""
    if model == reference:
        return np.arange(len(model)), np.arange(len(model))
    if not _share_words(kind, model, reference):
        return None
    trace = align_optimal(
        _sequence(kind, model),
        _sequence(kind, reference),
        _matrix(kind),
        gap_penalty=GAP_PENALTY,
        terminal_penalty=False,
        max_number=1,
    )[0].trace
    columns = trace[(trace >= 0).all(axis=1)]
    if len(columns) < MIN_COVERAGE * min(len(model), len(reference)):
        return None
    return columns[:, 0], columns[:, 1]


def _share_words(kind: str, model: str, reference: str) -> bool:
    shorter = min(len(model), len(reference))
    if shorter < SHORT:
        return True
    length = WORD_LENGTHS[kind]
    shared = len(_words(model, length) & _words(reference, length))
    return shared >= MIN_SHARED_WORDS * shorter


@lru_cache(maxsize=1_024)
def _words(sequence: str, length: int) -> frozenset[str]:
    return frozenset(sequence[i : i + length] for i in range(len(sequence) - length + 1))


@lru_cache(maxsize=1_024)
def _sequence(kind: str, letters: str) -> ProteinSequence | NucleotideSequence:
    if kind == "protein":
        return ProteinSequence("".join(c if c in AMINO_ACIDS else "X" for c in letters))
    bases = letters.replace("U", "T")
    return NucleotideSequence("".join(c if c in BASES else "N" for c in bases), ambiguous=True)


@lru_cache
def _matrix(kind: str) -> SubstitutionMatrix:
    if kind == "protein":
        return SubstitutionMatrix.std_protein_matrix()
    return SubstitutionMatrix.std_nucleotide_matrix()
