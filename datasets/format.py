"""Format: what a module of `formats/` offers to the reader, and the file that it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from foldcp.complex import Record
from foldcp.datasets.msas import MsaFolder
from foldcp.datasets.parsing.json_tree import parse_json
from foldcp.datasets.parsing.tables import Table, read_table
from foldcp.datasets.parsing.yaml_tree import Node
from foldcp.datasets.sequences import FastaRecord, fasta_records
from foldcp.datasets.templates import TemplateFolder
from foldcp.files import MAX_BYTES, unpacked_name

FASTA_SUFFIXES = (".fasta", ".fas", ".fa", ".faa")


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file's name ends in one of the suffixes, before `.gz` or `.xz`."""
    return unpacked_name(path.name).endswith(suffixes)


@dataclass(frozen=True)
class InputFile:
    """A file of complexes; its text is parsed as FASTA, as JSON or as a table on demand."""

    path: Path
    text: str

    def has_suffix(self, suffixes: tuple[str, ...]) -> bool:
        """Whether the name ends in one of the suffixes, see `has_suffix`."""
        return has_suffix(self.path, suffixes)

    @cached_property
    def fasta(self) -> list[FastaRecord]:
        """The records of a FASTA file, none for another. Raises ValueError naming the file."""
        text = self.text.lstrip()
        if not text.startswith(">") and not self.has_suffix(FASTA_SUFFIXES):
            return []
        return list(fasta_records(self.path, text))

    def fasta_to_read(self) -> list[FastaRecord]:
        """The records of what the user says is FASTA. Raises ValueError where it is not."""
        return self.fasta or list(fasta_records(self.path, self.text.lstrip()))

    @cached_property
    def json(self) -> Node | None:
        """The tree of a JSON file, None for a text that does not begin as one.

        Raises ValueError naming the file.
        """
        if not self.text.lstrip().startswith(("{", "[")):
            return None
        try:
            return parse_json(self.text)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    @cached_property
    def table(self) -> Table:
        """The text as a table. Raises ValueError naming the file."""
        return read_table(self.path, self.text)


@dataclass(frozen=True)
class ReadOptions:
    """Options of the user besides the input.

    `isoforms` says what an isoform's accession stands for that is not among the sequences: its
    canonical sequence, or an error. `proteins_only` builds complexes without those of their
    subunits that are no proteins or have no accession; without it, they are errors.
    `secondary_accessions` is a file of obsolete accessions as UniProt's sec_ac.txt,
    `stoichiometry` one of copy numbers. `uniprot` is the folder of entries of UniProt's REST
    service, which is asked for accessions that no FASTA has; without it nothing is looked up.
    `all_against_all` and `baits` make a screen of an input of single proteins: pairs of all of
    them, or of those of the file `baits` with all. `homodimers` are pairs of a protein with itself.
    `warn` is told in a line what deserves the user's attention. Files outside the input's folder
    are read only if `allow_outside` says so.
    """

    sequences: tuple[Path, ...] = ()  # FASTA files with the sequences of accessions
    msas: MsaFolder | None = None
    templates: TemplateFolder | None = None  # of complexes that name none
    format: str = ""  # of `FORMATS`; "" is that which the content tells
    isoforms: Literal["canonical", "fail"] = "canonical"
    stoichiometry: Path | None = None
    secondary_accessions: Path | None = None
    uniprot: Path | None = None
    proteins_only: bool = False
    all_against_all: bool = False
    baits: Path | None = None
    homodimers: bool = True
    allow_outside: bool = False
    max_bytes: int = MAX_BYTES  # of a file, unpacked
    warn: Callable[[str], None] | None = None


@dataclass(frozen=True)
class Format:
    """A format of inputs.

    `read` raises ValueError naming the file for one that cannot be used at all, before it yields
    the first record; `suffixes` are those of the files that are read from a folder, `alone` only
    where it has no files of other formats: alignments lie beside the inputs that name them.
    """

    name: str  # for --format
    description: str  # in the list of known formats
    recognises: Callable[[InputFile], bool]
    read: Callable[[InputFile, ReadOptions], Iterable[Record]]
    suffixes: tuple[str, ...] = ()
    alone: bool = False
