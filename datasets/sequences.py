"""Sequences by accession, and the parser of FASTA files that hold them."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from foldcp.datasets.accessions import UNIPROT, Replacements, present_accession
from foldcp.datasets.parsing.protein_names import ProteinNames, names_in
from foldcp.datasets.parsing.text_files import join_names, read_text
from foldcp.datasets.uniprot import Entry
from foldcp.files import MAX_BYTES

# An isoform, or a chain cut out of the precursor.
_VARIANT = re.compile(rf"({UNIPROT})(?:-\d+|[-:]PRO_\d+)")
_RANGE = re.compile(r"(.+):([0-9]{1,9})-([0-9]{1,9})")
# Words before the accession in `>sp|P12345|NAME`, as UniProt and NCBI write them.
_LIBRARIES = frozenset({"sp", "tr", "ref", "gb", "emb", "dbj"})
_TO_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)


@dataclass(frozen=True, slots=True)
class SequenceHit:
    """A sequence, the accession of its entry, and a note where that is not what was asked for."""

    sequence: str
    accession: str
    note: str = ""
    names: ProteinNames = field(default=ProteinNames(), compare=False)


@dataclass(frozen=True)
class Sequences:
    """Sequences by accession: of FASTA files, and of entries of UniProt for those that lack one.

    `names` are those in the headers of the files. `replacements` are the obsolete accessions;
    `isoforms` says what an isoform stands for that is not among the sequences.
    """

    paths: tuple[Path, ...]
    by_accession: Mapping[str, str] = field(repr=False)
    isoforms: Literal["canonical", "fail"] = "canonical"
    replacements: Replacements = field(default_factory=dict, repr=False)
    entries: Mapping[str, Entry] | None = field(default=None, repr=False)
    names: Mapping[str, ProteinNames] = field(default_factory=dict, repr=False)

    @property
    def source(self) -> str:
        """The names of the files, for messages."""
        names = [path.name for path in self.paths]
        return ", ".join(names if self.entries is None else [*names, "UniProt"])

    def find(self, accession: str) -> SequenceHit | None:
        """The sequence of `accession`, or None if there is none.

        An entry of exactly this name comes first, then UniProt's, then that of the accession which
        replaces it. Else `P12345-2` (isoform) and `P12345-PRO_0000000001` (mature chain) fall back
        on the entry of P12345, whole, with a note; `P12345:25-54` is cut out of the entry, both
        ends included, counted from 1. Raises ValueError where the range leaves the sequence, for an
        isoform that must not fall back, and for an accession that was split into several.
        """
        hit = self._find(accession)
        return hit and replace(hit, names=self._names_of(hit.accession))

    def _find(self, accession: str) -> SequenceHit | None:
        tidy = _tidy(accession)
        known = self.by_accession
        if accession in known:
            return SequenceHit(known[accession], accession)
        if re.fullmatch(UNIPROT, tidy):
            return self._entry(tidy)
        if part := _RANGE.fullmatch(accession):
            return self._cut(accession, part[1], int(part[2]), int(part[3]))
        if variant := _VARIANT.fullmatch(tidy):
            return self._whole(tidy, variant[1])
        return None

    def _names_of(self, accession: str) -> ProteinNames:
        """The names of an accession, or else of the entry that it is a range or an isoform of."""
        part = _RANGE.fullmatch(accession)
        whole = part[1] if part else accession
        for name in (whole, entry_accession(whole)):
            if names := self.names.get(name):
                return names
            if entry := self._from_uniprot(name):
                return ProteinNames(entry.gene, entry.protein_name)
        return ProteinNames()

    def unknown(self, accessions: Iterable[str]) -> ValueError:
        """The error of accessions without a sequence, with what UniProt says of each."""
        names = join_names(map(self._describe, accessions), 200)
        return ValueError(f"unknown accession: {names} not in {self.source}")

    def _describe(self, accession: str) -> str:
        entry = (self.entries or {}).get(entry_accession(accession))
        return f"{accession} (deleted at UniProt)" if entry and entry.deleted else accession

    def _entry(self, accession: str) -> SequenceHit | None:
        """The sequence of an entry, or of the one that replaces it."""
        present = accession
        if accession not in self.by_accession and not self._from_uniprot(accession):
            present = present_accession(accession, self.replacements)
        note = f"sequence: {present} used for {accession}, which it replaces"
        if sequence := self.by_accession.get(present):
            return SequenceHit(sequence, present, note if present != accession else "")
        if entry := self._from_uniprot(present):
            origin = f"sequence: {present} from UniProt, version {entry.version} of {entry.date}"
            note = origin if present == accession else f"{note} ({origin.partition(': ')[2]})"
            return SequenceHit(normalize(entry.sequence), present, note)
        return None

    def _from_uniprot(self, accession: str) -> Entry | None:
        entry = (self.entries or {}).get(accession)
        return entry if entry and entry.sequence else None

    def _whole(self, variant: str, canonical: str) -> SequenceHit | None:
        """The canonical sequence in place of an isoform or a mature chain."""
        hit = self._entry(canonical)
        if hit is None:
            return None
        if self.isoforms == "fail":
            raise ValueError(
                f"{variant} is not in {self.source}; --isoforms canonical takes the sequence of "
                f"{canonical}"
            )
        note = f"sequence: full-length {hit.accession} used for {variant}"
        if hit.note:
            note += f" ({hit.note.partition(': ')[2]})"
        return SequenceHit(hit.sequence, hit.accession, note)

    def _cut(self, accession: str, parent: str, first: int, last: int) -> SequenceHit | None:
        if _RANGE.fullmatch(parent):  # no range is cut out of a range
            return None
        whole = self._find(parent)
        if whole is None:
            return None
        if first > last:
            raise ValueError(f"{accession}: the range begins after its end")
        if first < 1 or last > len(whole.sequence):
            raise ValueError(f"{accession}: {parent} has residues 1 to {len(whole.sequence)} only")
        part = whole.sequence[first - 1 : last]
        return SequenceHit(part, f"{whole.accession}:{first}-{last}", whole.note)


def read_sequences(paths: Iterable[Path], max_bytes: int = MAX_BYTES) -> Sequences:
    """The sequences of FASTA files (gzip allowed) by the accession in each header.

    Raises ValueError naming the file: unreadable, larger than `max_bytes` once unpacked, not FASTA,
    a header without a name, or one accession for two sequences.
    """
    paths = tuple(paths)
    by_accession: dict[str, str] = {}
    names: dict[str, ProteinNames] = {}
    for path in paths:
        for header, letters in fasta_records(path, read_text(path, max_bytes)):
            accession = accession_of(header)
            if not accession:
                raise ValueError(f"{path}: a header without an accession (>{header})")
            sequence = normalize(letters)
            if by_accession.setdefault(accession, sequence) != sequence:
                raise ValueError(
                    f"{path}: two different sequences have the accession {accession!r}"
                )
            if found := names_in(header):
                names[accession] = found
    return Sequences(paths, by_accession, names=names)


def entry_accession(name: str) -> str:
    """The UniProt accession of the entry that an isoform, mature chain or range is of; "" for names
    of another kind.
    """
    part = _RANGE.fullmatch(name)
    tidy = _tidy(part[1] if part else name)
    variant = _VARIANT.fullmatch(tidy)
    accession = variant[1] if variant else tidy
    return accession if re.fullmatch(UNIPROT, accession) else ""


class FastaRecord(NamedTuple):
    """A record of a FASTA file: the header without `>`, and the letters as written."""

    header: str
    letters: str


def fasta_records(path: Path, text: str) -> Iterator[FastaRecord]:
    """The records of a FASTA text, their lines joined. Raises ValueError naming the file."""
    start, *blocks = ("\n" + text).split("\n>")
    if start.strip():
        raise ValueError(
            f"{path}: not a FASTA file, it starts with {start.split()[0][:40]!r} instead of '>'"
        )
    for block in blocks:
        header, _, body = block.partition("\n")
        letters = "".join(map(str.strip, body.splitlines()))
        yield FastaRecord(header.strip(), letters)


def accession_of(header: str) -> str:
    """P12345 of `P12345 some text`, `sp|P12345|NAME_HUMAN ...` and `sp|P12345.2|NAME_HUMAN`."""
    first, *rest = header.partition(" ")[0].partition("\t")[0].split("|")
    if first.lower() in _LIBRARIES and rest:
        return re.sub(r"\.\d+$", "", rest[0])
    return first


def _tidy(accession: str) -> str:
    """An accession in upper case and without the dash at its end: CORUM has Q9Jm54 and Q9NZL9-."""
    return accession.translate(_TO_UPPER).rstrip("-")


def normalize(sequence: str) -> str:
    """One-letter codes in upper case without white space and without the stop sign at the end."""
    return "".join(sequence.split()).translate(_TO_UPPER).removesuffix("*")
