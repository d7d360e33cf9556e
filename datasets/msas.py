"""MSA files of chains, found in a folder."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from foldcp.complex import Chain, MsaStatistics
from foldcp.datasets.msa_store import alignment_path, is_store, read_index
from foldcp.datasets.parsing.text_files import join_names
from foldcp.features.msa.parse import complex_shape, decode_plain
from foldcp.files import FileSource, check_regular, reading

# In the order of preference: Boltz's `key,sequence` CSV says which rows of two chains belong
# together.
SUFFIXES = (".csv", ".csv.gz", ".a3m", ".a3m.gz")
_MAX_LINE = 100_000
_PAIRED = "paired"  # the folder of paired alignments


@dataclass(frozen=True)
class MsaFolder:
    """Folders of MSA files, named by the SHA-256 of a sequence, an accession or a record."""

    paths: tuple[Path, ...]
    # listed once, the first folder that has a name counts: a database asks for tens of thousands
    files: Mapping[str, Path] = field(repr=False)
    # paired alignments by `paired_name`; listed once, too
    paired: Mapping[str, Path] = field(repr=False, default_factory=dict)
    # of the files that `foldcp msa` made
    statistics: Mapping[Path, MsaStatistics] = field(repr=False, default_factory=dict)

    @property
    def source(self) -> str:
        """The names of the folders, for messages."""
        return ", ".join(map(str, self.paths))

    def find(self, sequence: str, names: Iterable[str]) -> Path | None:
        """The MSA of `sequence`: `<sha256(sequence)>` and one of `SUFFIXES`, else by `names`.

        The hash goes first because it cannot be the MSA of another isoform or fragment. Raises
        ValueError where the file is not a regular one.
        """
        return self._first((sha256(sequence.encode()).hexdigest(), *names), SUFFIXES)

    def find_record(self, names: Sequence[str], sequences: Iterable[str]) -> Path | None:
        """The MSA of a whole record, `<name>.a3m` or .a3m.gz, as ColabFold writes it.

        Such a file holds the chains side by side, their lengths in its first line. It is the MSA
        of each of the different `sequences` (in the order of the record); a record of copies of one
        sequence needs no such line. ColabFold replaces letters that it does not allow in a file's
        name by `_`.

        Raises ValueError where a file has the record's name and aligns other chains: it would
        silently go unused.
        """
        lengths = [len(sequence) for sequence in dict.fromkeys(sequences)]
        safe = [re.sub(r"[^\w.-]", "_", name) for name in names]
        if len(lengths) == 1:
            return self._first((*names, *safe), SUFFIXES)
        found = self._first((*names, *safe), SUFFIXES[2:])
        if found is None:
            return None
        shape = complex_shape(_first_line(found))
        if shape is None:
            raise ValueError(
                f"{found}: has the name of a record of several chains, but its first line does not "
                "give their lengths (#20,9 and a tab and 1,1, as ColabFold writes it)"
            )
        if list(shape.lengths) != lengths:
            raise ValueError(
                f"{found}: aligns chains of {join_names(shape.lengths)} residues, but the record's "
                f"have {join_names(lengths)}"
            )
        return found

    def find_paired(self, sequences: Iterable[str]) -> Path | None:
        """The paired alignment of a complex's proteins, see `paired_name`."""
        distinct = set(sequences)
        if not self.paired or len(distinct) < 2:
            return None
        found = self.paired.get(paired_name(distinct))
        if found is not None:
            check_regular(found)
        return found

    def with_msas(self, chains: Iterable[Chain], names: Sequence[str]) -> tuple[Chain, ...]:
        """The chains of a record called `names`, proteins with their MSA or that of the record."""
        chains = tuple(chains)
        proteins = [chain for chain in chains if chain.kind == "protein"]
        accessions = {chain.sequence: chain.accession for chain in proteins}
        found = {
            sequence: self.find(sequence, [accession]) or self.find_record(names, accessions)
            for sequence, accession in accessions.items()
        }
        return self.with_paired(
            replace(chain, msa=found[chain.sequence]) if chain.kind == "protein" else chain
            for chain in chains
        )

    def with_paired(self, chains: Iterable[Chain]) -> tuple[Chain, ...]:
        """The chains of a record, proteins with the paired alignment of all of them and with what
        is known of their MSAs.
        """
        chains = tuple(chains)
        paired = self.find_paired(chain.sequence for chain in chains if chain.kind == "protein")
        return tuple(
            replace(chain, paired_msa=paired, msa_statistics=self._statistics_of(chain.msa))
            if chain.kind == "protein"
            else chain
            for chain in chains
        )

    def _statistics_of(self, msa: FileSource | None) -> MsaStatistics | None:
        return self.statistics.get(msa) if isinstance(msa, Path) else None

    def _first(self, names: Iterable[str], suffixes: Iterable[str]) -> Path | None:
        for name in names:
            for suffix in suffixes:
                if name and name + suffix in self.files:
                    found = self.files[name + suffix]
                    check_regular(found)
                    return found
        return None


def paired_name(sequences: Iterable[str]) -> str:
    """Where a folder has the paired alignment of proteins: by their distinct sequences, sorted."""
    joined = ":".join(sorted(set(sequences)))
    return f"{_PAIRED}/{sha256(joined.encode()).hexdigest()}.a3m.gz"


def open_msas(paths: Iterable[Path]) -> MsaFolder:
    """The MSA files in folders; of a folder of `foldcp msa`, those that its index lists.

    Raises ValueError where there is no such folder, or its index is damaged.
    """
    paths = tuple(paths)
    files: dict[str, Path] = {}
    paired: dict[str, Path] = {}
    statistics: dict[Path, MsaStatistics] = {}
    for path in paths:
        try:
            folder = path.resolve()
            if (folder / _PAIRED).is_dir():
                for file in (folder / _PAIRED).iterdir():
                    paired.setdefault(f"{_PAIRED}/{file.name}", file)
            if is_store(folder):
                for entry in read_index(folder):
                    file = alignment_path(folder, entry.sha256)
                    files.setdefault(file.name, file)
                    statistics[file] = entry.statistics
                continue
            for file in folder.iterdir():
                files.setdefault(file.name, file)
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"{path}: not a folder of alignments ({reason})") from error
    return MsaFolder(paths, files, paired, statistics)


def msa_notes(chains: Iterable[Chain]) -> tuple[str, ...]:
    """A note on proteins without an MSA, whose predictions are mostly poor."""
    alone = dict.fromkeys(
        chain.accession or f"chain {chain.name}"
        for chain in chains
        if chain.kind == "protein" and not (chain.msa or chain.paired_msa)
    )
    return (f"msa: no alignment for {join_names(alone, 200)}",) if alone else ()


def _first_line(path: Path) -> bytes:
    """The first line of an MSA file, which may be gzipped."""
    with reading(str(path)):
        check_regular(path)
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            line = (gzip.GzipFile(fileobj=file) if packed else file).readline(_MAX_LINE)
    return decode_plain(line)
