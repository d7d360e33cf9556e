"""Chains, complexes, and records of an input that are not valid complexes. Without torch."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, product
from typing import Literal

from foldcp.files import FileSource

Kind = Literal["protein", "dna", "rna", "ligand"]

_RANGED = re.compile(r":(\d+-\d+)\Z", re.ASCII)

# One-letter codes. U, O, B, Z, J and X are legal in a protein and become unknown residues, as in
# Boltz.
ALPHABETS: dict[Kind, frozenset[str]] = {
    "protein": frozenset("ACDEFGHIKLMNPQRSTVWYBJOUXZ"),
    "dna": frozenset("ACGTN"),
    "rna": frozenset("ACGUN"),
}


# A UniProt accession; https://www.uniprot.org/help/accession_numbers
UNIPROT = r"(?:[OPQ][0-9][A-Z0-9]{3}[0-9]|[A-NR-Z][0-9](?:[A-Z][A-Z0-9]{2}[0-9]){1,2})"


@dataclass(frozen=True, slots=True)
class MsaStatistics:
    """What the search that made an MSA says of it.

    `depth` counts its sequences, the query among them; `neff` is their effective number, the sum
    over sequences of 1 / (sequences at least 80% identical to it); `coverage` is the mean share of
    the query's columns in which a sequence has a residue, over all but the query.
    """

    depth: int
    neff: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Chain:
    """One copy of one molecule.

    A polymer has a `sequence`; a ligand has either CCD codes (`ccd`, one per component) or a
    `smiles`. `modifications` holds (position from 1, CCD code).

    `msa` is the file of its MSA (a3m or Boltz's `key,sequence` CSV); None means the query alone,
    which a run accepts if `single_sequence` says that it is meant. `paired_msa` is a second file
    (a3m) whose rows are paired with those of other chains: by the species in their headers, or by
    their numbers where no header names one. `msa_statistics` describe `msa` where they are known.

    `accession` is that of UniProt, with the range of the entry where the chain is a part of it
    (`P04637:325-356`); `gene` and `protein_name` are for the tables.

    >>> import foldcp
    >>> protein = foldcp.Chain("A", "protein", "MKTAYIAKQR", modifications=((4, "SEP"),))
    >>> ligand = foldcp.Chain("L", "ligand", ccd=("ATP",))
    """

    name: str
    kind: Kind
    sequence: str = ""
    accession: str = ""
    msa: FileSource | None = None
    cyclic: bool = False
    modifications: tuple[tuple[int, str], ...] = ()
    ccd: tuple[str, ...] = ()
    smiles: str = ""
    paired_msa: FileSource | None = None
    single_sequence: bool = False
    msa_statistics: MsaStatistics | None = field(default=None, compare=False)
    gene: str = field(default="", compare=False)
    protein_name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a chain has no name")
        if self.kind == "ligand":
            if bool(self.ccd) == bool(self.smiles):
                raise ValueError(f"ligand {self.name}: give either CCD codes or a SMILES string")
            # RDKit reads a SMILES up to the first white space, and takes the rest for the
            # molecule's name.
            if any(character.isspace() or not character.isprintable() for character in self.smiles):
                raise ValueError(
                    f"ligand {self.name}: white space in SMILES {self.smiles!r}; write it on one "
                    "line, without white space and without a name after it, and in single quotes "
                    "if it has backslashes"
                )
            return
        if self.kind not in ALPHABETS:
            kinds = ", ".join((*ALPHABETS, "ligand"))
            raise ValueError(f"chain {self.name}: unknown kind {self.kind!r}, expected {kinds}")
        if not self.sequence:
            raise ValueError(f"chain {self.name}: the {self.kind} sequence is empty")
        if illegal := sorted(set(self.sequence) - ALPHABETS[self.kind]):
            raise ValueError(
                f"chain {self.name}: invalid letters {''.join(illegal)!r} in the {self.kind} "
                "sequence"
            )
        for position, code in self.modifications:
            if not 1 <= position <= len(self.sequence):
                raise ValueError(
                    f"chain {self.name}: modification {code} at position {position}, "
                    f"but the chain has {len(self.sequence)} residues"
                )

    @property
    def lacks_alignment(self) -> bool:
        """Whether this is a protein without an alignment that nobody has said shall have none."""
        has_alignment = self.msa is not None or self.paired_msa is not None
        return self.kind == "protein" and not has_alignment and not self.single_sequence

    @property
    def entry_accession(self) -> str:
        """The accession without a range."""
        return _RANGED.sub("", self.accession)

    @property
    def entry_range(self) -> str:
        """The residues of the entry that the chain is, such as 325-356; empty for all."""
        match = _RANGED.search(self.accession)
        return match[1] if match else ""


# (chain name, residue from 1, or atom name for a ligand of one component)
Token = tuple[str, int | str]


@dataclass(frozen=True, slots=True)
class Bond:
    """A covalent bond between two atoms, each (chain name, residue from 1, atom name)."""

    atom1: tuple[str, int, str]
    atom2: tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class Pocket:
    """The tokens that a binder should touch, within `max_distance` Å; `force` steers to it."""

    binder: str
    contacts: tuple[Token, ...]
    max_distance: float = 6.0
    force: bool = False


@dataclass(frozen=True, slots=True)
class Contact:
    """Two tokens that should touch, within `max_distance` Å; `force` steers to it."""

    token1: Token
    token2: Token
    max_distance: float = 6.0
    force: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """A template structure for some chains (all if empty), and which of its chains they match.

    `force` adds a steering potential that holds the prediction to it within `threshold` Å.
    `residues` says which residues match, as (of the chain, of the template), both from 1 and the
    latter in the order of its entity's sequence; where it is empty, alignment decides.
    """

    path: FileSource
    chains: tuple[str, ...] = ()
    template_chains: tuple[str, ...] = ()
    force: bool = False
    threshold: float | None = None
    residues: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class DatabaseEntry:
    """What a database says of a complex besides its subunits, as it is written there.

    `gene_names` and `protein_names` are those of the subunits in their order. `confidence` is that
    of a prediction (hu.MAP). `other` holds, as JSON, what has no field here.
    """

    synonyms: tuple[str, ...] = ()
    gene_names: tuple[str, ...] = ()
    protein_names: tuple[str, ...] = ()
    stoichiometry: str = ""
    cell_line: str = ""
    purification_methods: tuple[str, ...] = ()
    go_ids: tuple[str, ...] = ()
    go_names: tuple[str, ...] = ()
    funcat_ids: tuple[str, ...] = ()
    funcat_names: tuple[str, ...] = ()
    pubmed_ids: tuple[str, ...] = ()
    cross_references: tuple[str, ...] = ()
    evidence: str = ""
    confidence: str = ""
    comment: str = ""
    subunits_comment: str = ""
    disease: str = ""
    other: str = ""


NO_ENTRY = DatabaseEntry()


@dataclass(frozen=True, slots=True)
class Complex:
    """Chains that are folded together, in the order of their tokens.

    `notes` tell what was assumed or left out where the source does not say, each as `subject:
    text`; they become a column of the tables. `index` is the number of the record in its input,
    from 0. `digests` holds the SHA-256 of each alignment and template as it was when the complex
    was planned: another content is refused where it is read. `entry` is what the database says.

    >>> import foldcp
    >>> chains = (foldcp.Chain("A", "protein", "MKTAYIAKQR"), foldcp.Chain("B", "dna", "GATTACA"))
    >>> foldcp.Complex("pair", chains).num_residues
    17
    """

    name: str
    chains: tuple[Chain, ...]
    title: str = ""
    organism: str = ""
    source: str = ""
    bonds: tuple[Bond, ...] = ()
    pockets: tuple[Pocket, ...] = ()
    contacts: tuple[Contact, ...] = ()
    templates: tuple[Template, ...] = ()
    method: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)
    digests: Mapping[FileSource, str] = field(default_factory=dict, compare=False)
    index: int = field(default=0, compare=False)
    entry: DatabaseEntry = field(default=NO_ENTRY, compare=False)

    def __post_init__(self) -> None:
        if not self.chains:
            raise ValueError(f"complex {self.name}: it has no chains")
        if len({chain.name for chain in self.chains}) < len(self.chains):
            counts = Counter(chain.name for chain in self.chains)
            twice = min(name for name, count in counts.items() if count > 1)
            raise ValueError(f"complex {self.name}: two chains are named {twice!r}")

    @property
    def num_residues(self) -> int:
        """Residues of all polymers: the tokens of a complex without ligands and modifications."""
        return sum(len(chain.sequence) for chain in self.chains)


@dataclass(frozen=True, slots=True)
class InvalidComplex:
    """A record of an input that is not a valid complex, and why; it becomes a row, not an error.

    `index`, `notes` and `entry` are as in `Complex`; `missing_accessions` are those of subunits
    without a known sequence.
    """

    name: str
    reason: str
    title: str = ""
    organism: str = ""
    source: str = ""
    index: int = 0
    notes: tuple[str, ...] = ()
    missing_accessions: tuple[str, ...] = ()
    entry: DatabaseEntry = NO_ENTRY


Record = Complex | InvalidComplex


def as_invalid(record: Record, reason: str) -> InvalidComplex:
    """A record that cannot be used after all, with what its source says of it."""
    missing = record.missing_accessions if isinstance(record, InvalidComplex) else ()
    return InvalidComplex(
        name=record.name,
        reason=reason,
        title=record.title,
        organism=record.organism,
        source=record.source,
        index=record.index,
        notes=record.notes,
        missing_accessions=missing,
        entry=record.entry,
    )


def chain_names() -> Iterator[str]:
    """A, B, .. Z, AA, AB, .. without end (the largest complex of CORUM has 129 chains)."""
    for length in count(1):
        for letters in product(string.ascii_uppercase, repeat=length):
            yield "".join(letters)
