"""Options of the commands that say how an input is read, and which of its complexes are taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from foldcp.datasets.reader import FORMAT_NAMES


def option(help: str, metavar: str = "", name: str = "") -> dict[str, Any]:
    """Metadata of an option: its help, and its name on the command line if it is another."""
    return {"help": help, "metavar": metavar, "name": name}


@dataclass(frozen=True, slots=True)
class InputOptions:
    """How an input is read, and which of its complexes are taken; empty and 0 mean all."""

    format: str = field(
        default="",
        metadata=option(
            f"Format of the input; by default its content tells. Of a folder, the files of this "
            f"format are read. One of {FORMAT_NAMES}.",
            "NAME",
        ),
    )
    sequences: tuple[Path, ...] = field(
        default=(),
        metadata=option(
            "FASTA of sequences by UniProt accession, for tables that list accessions; may be "
            "repeated.",
            "FASTA",
        ),
    )
    uniprot: bool = field(
        default=False,
        metadata=option("Look up accessions that no FASTA has at UniProt's REST service."),
    )
    secondary_accessions: Path | None = field(
        default=None,
        metadata=option(
            "Obsolete accessions and those that replace them, as UniProt's sec_ac.txt.", "FILE"
        ),
    )
    isoforms: Literal["canonical", "fail"] = field(
        default="canonical",
        metadata=option(
            "What P12345-2 stands for where the FASTA does not have it: the canonical sequence, "
            "or an error."
        ),
    )
    stoichiometry: Path | None = field(
        default=None,
        metadata=option(
            "Table of copy numbers (complex, accession, copies), for those that the input lacks.",
            "FILE",
        ),
    )
    proteins_only: bool = field(
        default=False,
        metadata=option(
            "Build complexes without those of their subunits that are no proteins or have no "
            "accession."
        ),
    )
    all_against_all: bool = field(
        default=False,
        metadata=option(
            "Make a screen of INPUT, a FASTA or a list of accessions: a complex of every two "
            "proteins, and of each with itself."
        ),
    )
    baits: Path | None = field(
        default=None,
        metadata=option(
            "Make a screen of INPUT, a FASTA or a list of accessions: a complex of each protein of "
            "FILE, another such, with each of INPUT.",
            "FILE",
        ),
    )
    no_homodimers: bool = field(
        default=False,
        metadata=option("Leave out the pairs of a protein with itself of such a screen."),
    )
    msas: tuple[Path, ...] = field(
        default=(),
        metadata=option(
            "Folder of alignments, of `foldcp msa` or of a3m and Boltz CSV files; may be repeated, "
            "the first that has one counts.",
            "DIR",
        ),
    )
    templates: Path | None = field(
        default=None,
        metadata=option(
            "Folder of `foldcp templates`, for complexes that name no templates of their own.",
            "DIR",
        ),
    )
    allow_outside: bool = field(
        default=False,
        metadata=option("Read files that the input names even outside its own folder."),
    )
    organism: str = field(
        default="",
        metadata=option(
            "Only complexes of this organism, such as Human; for common ones, the scientific name "
            "and the NCBI taxon mean the same.",
            "NAME",
        ),
    )
    ids: tuple[str, ...] = field(
        default=(),
        metadata=option("Only the complex of this name; may be repeated.", "ID", name="--id"),
    )
    ids_file: Path | None = field(
        default=None,
        metadata=option("Only the complexes named in a file, one on each line.", "FILE"),
    )
    min_chains: int = field(default=0, metadata=option("Only complexes of at least N chains.", "N"))
    max_chains: int = field(
        default=0, metadata=option("Only complexes of at most N chains; 0: any number.", "N")
    )
    min_residues: int = field(
        default=0, metadata=option("Only complexes of at least N residues.", "N")
    )
    max_residues: int = field(
        default=0, metadata=option("Only complexes of at most N residues; 0: any number.", "N")
    )
