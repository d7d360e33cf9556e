"""Sequences by accession, and the parser of FASTA files that hold them."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from foldcp.datasets.parsing.text_files import read_text
from foldcp.files import MAX_BYTES

# https://www.uniprot.org/help/accession_numbers
UNIPROT = r"(?:[OPQ][0-9][A-Z0-9]{3}[0-9]|[A-NR-Z][0-9](?:[A-Z][A-Z0-9]{2}[0-9]){1,2})"
# An isoform, or a chain cut out of the precursor.
_VARIANT = re.compile(rf"({UNIPROT})-(?:\d+|PRO_\d+)")
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


@dataclass(frozen=True)
class Sequences:
    """Sequences by accession."""

    paths: tuple[Path, ...]
    by_accession: dict[str, str] = field(repr=False)

    @property
    def source(self) -> str:
        """The names of the files, for messages."""
        return ", ".join(path.name for path in self.paths)

    def find(self, accession: str) -> SequenceHit | None:
        """The sequence of `accession`, or None if the file does not have it.

        An entry of exactly this name comes first. Else `P12345-2` (isoform) and
        `P12345-PRO_0000000001` (mature chain) fall back on the entry of P12345, whole, with a note;
        `P12345:25-54` is cut out of the entry, both ends included, counted from 1. Raises
        ValueError where the range leaves the sequence.
        """
        tidy = accession.translate(_TO_UPPER).rstrip("-")  # CORUM has Q9Jm54 and Q9NZL9-
        known = self.by_accession
        if accession in known:
            return SequenceHit(known[accession], accession)
        if re.fullmatch(UNIPROT, tidy) and tidy in known:
            return SequenceHit(known[tidy], tidy)
        if part := _RANGE.fullmatch(accession):
            return self._cut(accession, part[1], int(part[2]), int(part[3]))
        if (variant := _VARIANT.fullmatch(tidy)) and variant[1] in known:
            note = f"sequence: full-length {variant[1]} used for {tidy}"
            return SequenceHit(known[variant[1]], variant[1], note)
        return None

    def _cut(self, accession: str, parent: str, first: int, last: int) -> SequenceHit | None:
        if _RANGE.fullmatch(parent):  # no range is cut out of a range
            return None
        whole = self.find(parent)
        if whole is None:
            return None
        if not 1 <= first <= last <= len(whole.sequence):
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
    return Sequences(paths, by_accession)


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


def normalize(sequence: str) -> str:
    """One-letter codes in upper case without white space and without the stop sign at the end."""
    return "".join(sequence.split()).translate(_TO_UPPER).removesuffix("*")
