"""Proteins of a screen: each is looked up once, and its chains are shared by all of its pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from foldcp.complex import Chain, Complex, InvalidComplex, Record
from foldcp.datasets.formats.fasta import protein_chain
from foldcp.datasets.msas import MsaFolder, msa_notes
from foldcp.datasets.sequences import Sequences
from foldcp.files import reading

_NAMES = ("A", "B")  # of the chains of a pair


@dataclass(frozen=True, slots=True)
class Protein:
    """A protein as chain A and as chain B of a pair, and a note on its sequence, if there is one.

    `reason` says why it cannot be folded; then it has no chains.
    """

    chains: tuple[Chain, ...] = ()
    note: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Proteins:
    """The proteins of a screen by accession, each made when it is first asked for."""

    sequences: Sequences
    msas: MsaFolder | None
    _found: dict[str, Protein] = field(default_factory=dict, repr=False)

    def find(self, accession: str) -> Protein:
        """The protein of an accession, which may be that of an isoform or a range."""
        if accession not in self._found:
            try:
                self._found[accession] = self._make(accession)
            except ValueError as error:
                self._found[accession] = Protein(reason=str(error))
        return self._found[accession]

    def pair(self, name: str, accessions: Sequence[str], source: str, index: int) -> Record:
        """The complex of two proteins, which may be twice the same."""
        first, second = map(self.find, accessions)
        if first.reason or second.reason:
            reasons = dict.fromkeys(filter(None, (first.reason, second.reason)))
            return InvalidComplex(name, "; ".join(reasons), source=source, index=index)
        chains = (first.chains[0], second.chains[1])
        if self.msas and self.msas.paired:
            try:
                chains = self._with_paired(self.msas, chains)
            except ValueError as error:
                return InvalidComplex(name, str(error), source=source, index=index)
        notes = msa_notes(chains)
        if first.note or second.note:
            notes = (*dict.fromkeys(filter(None, (first.note, second.note))), *notes)
        return Complex(name, chains, source=source, notes=notes, index=index)

    def _make(self, accession: str) -> Protein:
        hit = self.sequences.find(accession)
        if hit is None:
            raise self.sequences.unknown([accession])
        with reading(hit.accession):
            msa = self.msas.find(hit.sequence, [hit.accession]) if self.msas else None
            statistics = self.msas.statistics.get(msa) if self.msas and msa else None
            try:
                chain = protein_chain(_NAMES[0], hit.sequence, hit.accession)
            except ValueError as error:
                raise ValueError(f"{hit.accession}: {error}") from error
        chain = replace(
            chain,
            msa=msa,
            msa_statistics=statistics,
            gene=hit.names.gene,
            protein_name=hit.names.protein,
        )
        return Protein((chain, replace(chain, name=_NAMES[1])), hit.note)

    @staticmethod
    def _with_paired(msas: MsaFolder, chains: tuple[Chain, Chain]) -> tuple[Chain, Chain]:
        paired = msas.find_paired(chain.sequence for chain in chains)
        if paired is None:
            return chains
        first, second = chains
        return replace(first, paired_msa=paired), replace(second, paired_msa=paired)
