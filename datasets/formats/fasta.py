"""FASTA files whose records are complexes: chains joined by `:`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from foldcp.complex import Chain, Complex, InvalidComplex, Record, chain_names
from foldcp.datasets.chains import check_num_chains, group_by_entity
from foldcp.datasets.format import FASTA_SUFFIXES, Format, InputFile, ReadOptions
from foldcp.datasets.msas import MsaFolder, msa_notes
from foldcp.datasets.parsing.protein_names import ProteinNames, names_in
from foldcp.datasets.sequences import FastaRecord, accession_of, normalize
from foldcp.files import FileSource, reading

# The note on a record that may have been meant as a chain of a complex.
FOLDED_ALONE = "chains: record folded alone; join the chains of one complex by ':'"
_MAX_CHAINS = 100  # more records than this are not one complex, written chain by chain
# From this length on, a sequence of all of A, C, G and T and nothing else is assumed to be DNA.
_MIN_DNA_LENGTH = 20


@dataclass(frozen=True, slots=True)
class JoinedRecord:
    """One record as written: sequences joined by `:`."""

    name: str
    sequence: str
    source: str
    msa_names: tuple[str, ...]  # that the MSA of the whole record may have
    msa: Path | None = None  # that the record names
    title: str = ""
    accession: str = ""
    notes: tuple[str, ...] = ()
    names: ProteinNames = field(default=ProteinNames())  # of a record of one chain

    def to_complex(self, msas: MsaFolder | None) -> Record:
        """The complex of the record, or why it is invalid."""
        try:
            with reading(self.name):
                chains = self._chains(msas)
                notes = (*self.notes, *msa_notes(chains))
                return Complex(self.name, chains, self.title, source=self.source, notes=notes)
        except ValueError as error:
            return InvalidComplex(
                self.name, str(error), self.title, source=self.source, notes=self.notes
            )

    def _chains(self, msas: MsaFolder | None) -> tuple[Chain, ...]:
        check_num_chains(self.sequence.count(":") + 1)
        parts = [normalize(part) for part in self.sequence.split(":")]
        # The header of several chains names the complex, not its chains.
        accession = self.accession if len(parts) == 1 else ""
        names = self.names if len(parts) == 1 else ProteinNames()
        first = {}  # one chain of each sequence; the others are copies of it
        for name, part in zip(chain_names(), parts, strict=False):
            if part not in first:
                chain = protein_chain(name, part, accession)
                first[part] = replace(chain, gene=names.gene, protein_name=names.protein)
        if self.msa:
            first = {part: replace(chain, msa=self.msa) for part, chain in first.items()}
        elif msas:
            aligned = msas.with_msas(first.values(), self.msa_names)
            first = dict(zip(first, aligned, strict=True))
        return group_by_entity(
            replace(first[part], name=name)
            for name, part in zip(chain_names(), parts, strict=False)
        )


def _recognises(file: InputFile) -> bool:
    return bool(file.fasta)


def _read(file: InputFile, options: ReadOptions) -> Iterator[Record]:
    """The records; ValueError for what is no FASTA file."""
    return _records(file, file.fasta_to_read(), options)


def _records(file: InputFile, records: list[FastaRecord], options: ReadOptions) -> Iterator[Record]:
    """A complex for each record.

    It is named by its accession, the first word of its header, or by the whole header where several
    begin with the same word.
    """
    num_alike = Counter(accession_of(record.header) for record in records)
    common_notes: tuple[str, ...] = ()
    if 1 < len(records) <= _MAX_CHAINS and not any(":" in record.letters for record in records):
        common_notes = (FOLDED_ALONE,)
    for number, (header, letters) in enumerate(records, start=1):
        accession = name = accession_of(header)
        notes = common_notes
        if name and num_alike[name] > 1:
            name = " ".join(header.split())
            notes = (
                *notes,
                f"name: whole header, as several records begin with {accession!r}",
            )
        yield JoinedRecord(
            name=name or f"record {number}",
            sequence=letters,
            source=file.path.name,
            msa_names=tuple(dict.fromkeys(filter(None, (name, accession, header)))),
            title=header.partition(" ")[2].strip(),
            accession=accession,
            notes=notes,
            names=names_in(header) or ProteinNames(),
        ).to_complex(options.msas)


def protein_chain(
    name: str, sequence: str, accession: str = "", msa: FileSource | None = None
) -> Chain:
    """A protein of a format that does not tell the kinds of its chains.

    Raises ValueError for a sequence that looks like a nucleic acid's.
    """
    letters = set(sequence)
    if len(sequence) >= _MIN_DNA_LENGTH and letters in (set("ACGT"), set("ACGU")):
        raise ValueError(
            f"chain {name}: the letters are those of a nucleic acid; use a Boltz YAML file, which "
            "says so"
        )
    return Chain(name, "protein", sequence, accession, msa)


FORMAT = Format("fasta", "FASTA", _recognises, _read, suffixes=FASTA_SUFFIXES)
