"""Complexes of an input, whatever its format.

from foldcp.datasets.reader import read

for record in read(Path("allComplexes.txt"), sequences=Path("uniprot.fasta.gz")):
    print(record.name, record.reason if isinstance(record, InvalidComplex) else record.num_residues)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from foldcp.complex import InvalidComplex, Record
from foldcp.datasets.formats import boltz, chai, databases, fasta
from foldcp.datasets.msas import MsaFolder, open_msas
from foldcp.datasets.parsing.tables import Table, read_table
from foldcp.datasets.parsing.text_files import escaped, is_unicode, read_text, stem
from foldcp.datasets.sequences import fasta_records, read_sequences
from foldcp.files import MAX_BYTES, reading

_YAML = (".yaml", ".yml", ".json")
_FASTA = (".fasta", ".fas", ".fa", ".faa")
_YAML_START = re.compile(r"(?:\s|#.*\n|---.*\n)*(?:(?:sequences|version)\s*:|\{)")
_START = 100_000  # characters in which a YAML file must begin
_LONGEST_REASON = 2_000
KNOWN = (
    "CORUM, Complex Portal or hu.MAP table, FASTA, ColabFold CSV (id,sequence), Boltz YAML, "
    "or a folder of FASTA and YAML files"
)


def read(
    path: Path,
    sequences: Path | None = None,
    msas: Path | None = None,
    max_bytes: int = MAX_BYTES,
) -> Iterator[Record]:
    """The complexes of `path`, in its order; a record that cannot be built is an `InvalidComplex` with
    its reason.

    What the file is, its content says: CORUM 2 to 5, Complex Portal's ComplexTAB and hu.MAP 2 and 3
    by the names of their columns (they list accessions, and `sequences` is the FASTA file that has
    them), FASTA and ColabFold CSV (chains joined by `:`), Boltz YAML, Boltz FASTA or Chai-lab FASTA
    (one complex), or a folder of YAML and FASTA files. Gzip is unpacked. `msas` is a folder of
    alignments, see `MsaFolder`. Only regular files of at most `max_bytes` once unpacked are read.
    Records are numbered (`place`) from 0.

    Raises ValueError at once, in a line with the file and the value, for a file that is none of
    these, lacks all content or is a single wrong complex, for a missing `sequences`, and for a bad
    `sequences` or `msas`. In a folder, a wrong file is an `InvalidComplex` like a wrong row of a
    table.
    """
    for named in filter(None, (path, sequences, msas)):
        if not is_unicode(str(named)):
            raise ValueError(f"{escaped(named)}: the name is not valid UTF-8; rename it")
    folder = open_msas(msas) if msas else None
    with reading(str(path)):
        found = (
            _folder(path, folder, max_bytes)
            if path.is_dir()
            else _file(path, sequences, folder, max_bytes)
        )
    return _numbered(_distinct(found))


def _file(
    path: Path, sequences: Path | None, msas: MsaFolder | None, max_bytes: int
) -> Iterable[Record]:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".a3m"):
        raise ValueError(f"{path}: an alignment; give the folder that holds it with --msas")
    content = read_text(path, max_bytes)
    if name.endswith(_YAML) or _YAML_START.match(content[:_START]):
        return [boltz.boltz_yaml(path, content, msas)]
    content = content.lstrip()
    if content.startswith(">") or name.endswith(_FASTA):
        return _fasta(path, content, msas)
    table = read_table(path, content)
    if records := _table(table, sequences, msas, max_bytes):
        return records
    raise ValueError(
        f"{path}: not an input ({KNOWN}); its columns are {', '.join(table.columns)[:200]!r}"
    )


def _fasta(path: Path, content: str, msas: MsaFolder | None) -> Iterable[Record]:
    """The complexes of a FASTA text; the form of its headers tells which program it was written
    for.
    """
    records = list(fasta_records(path, content))
    headers = [header for header, _ in records]
    if boltz.is_boltz_fasta(headers):
        return [boltz.boltz_fasta(path, records, msas)]
    if chai.is_chai_fasta(headers):
        return [chai.chai_fasta(path, records, msas)]
    return fasta.fasta(path, records, msas)


def _table(
    table: Table, sequences: Path | None, msas: MsaFolder | None, max_bytes: int
) -> Iterable[Record] | None:
    """The complexes of a table of a known kind, None for another."""
    keys = frozenset(table.keys)
    database = next((known for known in databases.DATABASES if known.required <= keys), None)
    if database is None and not keys >= fasta.COLABFOLD:
        if keys >= {"key", "sequence"}:
            raise ValueError(
                f"{table.path}: an alignment (key,sequence); give the folder that holds "
                "it with --msas"
            )
        return None
    _check_columns(table, {*database.required, "stoichiometry"} if database else fasta.COLABFOLD)
    if not table.body:
        raise ValueError(f"{table.path}: the table has no rows")
    if database is None:
        return fasta.colabfold(table, msas)
    if sequences is None:
        raise ValueError(
            f"{table.path}: names proteins by accession; give a file that has them with "
            "--sequences FASTA"
        )
    return databases.records(table, database, read_sequences(sequences, max_bytes), msas)


def _check_columns(table: Table, needed: Collection[str]) -> None:
    """ValueError where two columns say the same: only one of them would be read."""
    counts = Counter(table.keys)
    columns = zip(table.columns, table.keys, strict=True)
    if twice := [column for column, key in columns if key in needed and counts[key] > 1]:
        raise ValueError(
            f"{table.path}: which of the columns {', '.join(map(repr, twice))} is meant? Leave "
            "out the others"
        )


def _folder(path: Path, msas: MsaFolder | None, max_bytes: int) -> Iterable[Record]:
    endings = (*_YAML, *_FASTA)
    # Hidden files are none of the user's: a Mac leaves a binary `._a.yaml` beside each `a.yaml`.
    shown = (file for file in path.iterdir() if not file.name.startswith("."))
    files = sorted(
        file for file in shown if file.name.lower().removesuffix(".gz").endswith(endings)
    )
    if not files:
        raise ValueError(f"{path}: the folder has no file that ends in {', '.join(endings)}")
    return _files(files, msas, max_bytes)


def _files(files: list[Path], msas: MsaFolder | None, max_bytes: int) -> Iterator[Record]:
    for file in files:
        try:
            if not is_unicode(file.name):
                raise ValueError(f"{escaped(file)}: the file's name is not valid UTF-8; rename it")
            with reading(str(file)):
                yield from _file(file, None, msas, max_bytes)
        except ValueError as error:
            yield InvalidComplex(escaped(stem(file)), str(error), source=escaped(file.name))


def _distinct(records: Iterable[Record]) -> Iterator[Record]:
    """The records, but the second of one name cannot be told from the first and is left out with
    that reason.
    """
    names: set[str] = set()
    for record in records:
        if record.name in names:
            reason = f"an earlier record is named {record.name!r} too"
            yield InvalidComplex(
                record.name,
                reason,
                record.title,
                record.organism,
                record.source,
                notes=record.notes,
            )
        else:
            names.add(record.name)
            yield record


def _numbered(records: Iterable[Record]) -> Iterator[Record]:
    """The records with their places; reasons are cut to what a cell of a table can show."""
    for place, record in enumerate(records):
        if isinstance(record, InvalidComplex):
            reason = record.reason if is_unicode(record.reason) else escaped(record.reason)
            yield replace(record, place=place, reason=reason[:_LONGEST_REASON])
        else:
            yield replace(record, place=place)
