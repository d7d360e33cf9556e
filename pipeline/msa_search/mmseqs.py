"""Alignments by a local MMseqs2: all sequences of a batch in one search of each database.

The steps and their parameters are those of ColabFold's search (colabfold_search): the second
database is searched with the profiles that the first has given.
"""

from __future__ import annotations

import glob
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foldcp.features.msa.parse import UNPAIRED, parse_msas
from foldcp.features.msa.taxonomy import taxonomy_key
from foldcp.pipeline.msa_search.programs import (
    ProgramError,
    Programs,
    database_identity,
    find_program,
)
from foldcp.pipeline.msa_search.search import AlignedRow, FoundAlignment, SearchFailure

BATCH_SIZE = 10_000

# As on a command line, for reading and for the identity.
_SEARCH = "--num-iterations 3 -a -e 0.1 --max-seqs 10000"
_SENSITIVITY = "-s 8"
_GPU = "--gpu 1 --gpu-server 1 --prefilter-mode 1"  # is as sensitive as it can be
_EXPAND = "--expansion-mode 0 -e inf --expand-filter-clusters 1 --max-seq-id 0.95"
_EXPAND_BY_PROFILES = "--expansion-mode 0 -e inf"
_ALIGN = "-e 10 --max-accept 100000 --alt-ali 10 -a"
_FILTER = "--qid 0 --qsc 0.8 --cov 0 --diff 0 --max-seq-id 1.0 --filter-min-enable 100"
_MSA = (
    "--msa-format-mode 5 --filter-msa 1 --filter-min-enable 1000 --diff 3000 "
    "--qid 0.0,0.2,0.4,0.6,0.8,1.0 --qsc 0 --max-seq-id 0.95"
)


@dataclass
class MmseqsSearch:
    """A `Search` of `database` and then of `environmental`, made by `mmseqs createdb` or as
    ColabFold's, with clusters.

    `temporary` is the folder for intermediate files, which the system's is where it is None. Raises
    ValueError where the program or a database is missing.
    """

    database: Path
    environmental: Path | None = None
    threads: int = 0
    gpu_server: bool = False
    temporary: Path | None = None
    batch_size: int = BATCH_SIZE
    programs: Programs = field(default_factory=Programs)

    def __post_init__(self) -> None:
        self._mmseqs = find_program("mmseqs")
        self._databases = [self.database, *([self.environmental] if self.environmental else [])]
        for database in self._databases:
            if not all(_beside(database, end).is_file() for end in (".dbtype", ".index")):
                raise ValueError(
                    f"{database}: not a database of MMseqs2 (`mmseqs createdb FASTA DB` makes one)"
                )
            if not _beside(database, ".index").stat().st_size:
                raise ValueError(f"{database}: has no sequences")
        try:
            self._version = self.programs.run([self._mmseqs, "version"]).strip()
        except ProgramError as error:
            raise ValueError(str(error)) from error

    @property
    def identity(self) -> Mapping[str, str]:
        """Version, databases and parameters."""
        how = f"{_SEARCH} {_GPU if self.gpu_server else _SENSITIVITY}"
        found = {
            "method": "mmseqs",
            "version": self._version,
            "database": database_identity(_beside(self.database, ".index")),
            "parameters": "; ".join([how, _EXPAND, _EXPAND_BY_PROFILES, _ALIGN, _FILTER, _MSA]),
        }
        if self.environmental:
            found["environmental"] = database_identity(_beside(self.environmental, ".index"))
        return found

    def search(self, sequences: Sequence[str]) -> Iterator[FoundAlignment | SearchFailure]:
        """The alignment of each sequence: the rows of the databases, each row once."""
        with tempfile.TemporaryDirectory(prefix="mmseqs-", dir=self.temporary) as name:
            try:
                yield from self._search(sequences, Path(name))
            except ProgramError as error:
                for sequence in sequences:
                    yield SearchFailure(sequence, str(error))

    def _search(self, sequences: Sequence[str], folder: Path) -> list[FoundAlignment]:
        fasta = folder / "queries.fasta"
        fasta.write_text("".join(f">{i}\n{text}\n" for i, text in enumerate(sequences)))
        queries = folder / "queries"
        self._run("createdb", fasta, queries, "--shuffle", "0")
        found: list[dict[AlignedRow, None]] = [{AlignedRow(text): None} for text in sequences]
        searched = queries
        for number, database in enumerate(self._databases):
            work = folder / str(number)
            work.mkdir()
            searched = self._align(queries, searched, database, work)
            for i, rows in enumerate(found):
                rows.update(dict.fromkeys(_rows(work, i)))
        return [
            FoundAlignment(sequence, tuple(rows))
            for sequence, rows in zip(sequences, found, strict=True)
        ]

    def _align(self, queries: Path, searched: Path, database: Path, work: Path) -> Path:
        """Write `work`/msas/<number of the query>.a3m and the organisms of targets.

        `searched` are the queries or their profiles; returns the profiles after this search.
        """
        threads = ["--threads", str(self.threads)] if self.threads else []
        result = work / "result"
        how = [*_SEARCH.split(), *(_GPU if self.gpu_server else _SENSITIVITY).split()]
        self._run("search", searched, database, result, work / "tmp", *how, *threads)
        profiles = work / "tmp" / "latest" / "profile_1"
        targets = database
        if all(_beside(database, f"{kind}.dbtype").is_file() for kind in ("_seq", "_aln")):
            targets = _members(database, work)
            expand = _EXPAND if searched == queries else _EXPAND_BY_PROFILES
            clusters = _beside(database, "_aln")
            words = ["expandaln", searched, targets, result, clusters, work / "expanded"]
            self._run(*words, *expand.split(), *threads)
            words = ["align", profiles, targets, work / "expanded", work / "aligned"]
            self._run(*words, *_ALIGN.split(), *threads)
            result = work / "filtered"
            words = ["filterresult", queries, targets, work / "aligned", result]
            self._run(*words, *_FILTER.split(), *threads)
        self._run("result2msa", queries, targets, result, work / "msa", *_MSA.split(), *threads)
        names = ["--unpack-name-mode", "0", "--unpack-suffix", ".a3m"]
        self._run("unpackdb", work / "msa", work / "msas", *names, *threads)
        has_taxonomy = _beside(targets, "_mapping").is_file()
        columns = "query,target,taxid" if has_taxonomy else "query,target,theader"
        table = work / "targets.tsv"
        output = ["--format-output", columns, *threads]
        self._run("convertalis", queries, targets, result, table, *output)
        _write_organisms(table, work, has_taxonomy)
        return profiles

    def _run(self, *words: str | Path) -> None:
        self.programs.run([self._mmseqs, *words, "-v", "1"])


def _beside(database: Path, ending: str) -> Path:
    return database.with_name(database.name + ending)


def _members(database: Path, work: Path) -> Path:
    """The sequences of all members of clusters; beside them their organisms, which ColabFold's
    databases have beside the clusters.
    """
    members = _beside(database, "_seq")
    if _beside(members, "_mapping").is_file() or not _beside(database, "_mapping").is_file():
        return members
    linked = work / "members"
    for path in [*members.parent.glob(glob.escape(members.name) + "*")]:
        _beside(linked, path.name.removeprefix(members.name)).symlink_to(path.resolve())
    _beside(linked, "_mapping").symlink_to(_beside(database, "_mapping").resolve())
    return linked


def _write_organisms(table: Path, work: Path, has_taxonomy: bool) -> None:
    """Sort a table of targets into a file for each query, so that one is in memory at a time."""
    folder = work / "organisms"
    folder.mkdir()
    if not table.exists():
        return
    current = ""
    lines: list[str] = []
    with table.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            query, target, value = [*line.rstrip("\n").split("\t", 2), "", ""][:3]
            if query != current:
                _append(folder / current, lines)
                lines = []
                current = query
            taxid = int(value) if value.isdigit() else 0
            key = (taxid or UNPAIRED) if has_taxonomy else taxonomy_key(value)
            lines.append(f"{target}\t{key}\n")
    _append(folder / current, lines)


def _append(path: Path, lines: list[str]) -> None:
    if lines:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(lines)


def _rows(work: Path, query: int) -> Iterator[AlignedRow]:
    """What was found for a query, in the order of the search."""
    keys: dict[str, int] = {}
    organisms = work / "organisms" / str(query)
    if organisms.exists():
        for line in organisms.read_text(encoding="utf-8").splitlines():
            target, _, key = line.partition("\t")
            keys[target] = int(key)
    path = work / "msas" / f"{query}.a3m"
    if not path.exists():
        return
    read_rows = parse_msas(path, path.read_bytes())[0]
    for row in itertools.islice(read_rows(), 1, None):
        target = row.header.decode(errors="replace").split()[:1]
        yield AlignedRow(row.text.decode("latin-1"), keys.get("".join(target), UNPAIRED))
