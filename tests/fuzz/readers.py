"""The readers that are fuzzed: how each is called, its inputs, and expected exceptions."""

from __future__ import annotations

import csv
import json
import random
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers.expat import ExpatError

import yaml

from foldcp.complex import Complex
from foldcp.datasets.accessions import read_replacements
from foldcp.datasets.format import ReadOptions
from foldcp.datasets.msa_store import INDEX as INDEX_FILE
from foldcp.datasets.msa_store import read_index
from foldcp.datasets.reader import read
from foldcp.datasets.stoichiometry import read_copy_numbers
from foldcp.features.featurize import featurize
from foldcp.features.msa.chain_msas import MsaSettings, read_chain_msas
from foldcp.features.msa.read import read_msa
from foldcp.features.steering import steering_constraints
from foldcp.features.templates.structure import read_template
from foldcp.files import LZMAError
from foldcp.pipeline.config import load
from foldcp.pipeline.msa_search.importing import ImportedAlignments
from foldcp.pipeline.msa_search.server.archive import (
    DamagedArchiveError,
    read_alignments,
    read_members,
)
from tests.fuzz import seeds
from tests.fuzz.mutate import mutated
from tests.fuzz.structured_yaml import make_yaml

Make = Callable[[random.Random], bytes]
Run = Callable[[Path], object]


@dataclass(frozen=True)
class Damaged:
    """Valid inputs after some mutations; `pack` makes files of them."""

    seeds: Sequence[bytes]
    pack: Callable[[bytes], bytes] = bytes

    def __call__(self, rng: random.Random) -> bytes:
        return self.pack(mutated(rng, self.seeds))


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    `make` gives an input, which is written to `file` beside the `others`; `run` reads it.
    `expected` are the exceptions of libraries that the format may raise and the reader turns into
    its `refusal`; any other that it turns into one is a fault of ours. A ValueError names the file.
    """

    name: str
    file: str
    make: Make
    run: Run
    expected: tuple[type[Exception], ...] = ()
    others: dict[str, bytes] = field(default_factory=dict)
    refusal: type[Exception] = ValueError


def _records(path: Path) -> object:
    options = ReadOptions(sequences=(path.with_name("s.fasta"),), max_bytes=10_000_000)
    return list(read(path, options))


def _featurized(path: Path) -> object:
    """The complexes of an input, as far as the network's features and the terms that steer."""
    complexes = [record for record in read(path) if isinstance(record, Complex)]
    for complex in complexes:
        featurize(complex, seed=1)
        steering_constraints(complex, potentials=True)
    return complexes


def _with_embedded_files(path: Path) -> object:
    """The complexes of a job, their alignments and templates, which are texts inside of it."""
    complexes = [record for record in read(path) if isinstance(record, Complex)]
    for complex in complexes:
        read_chain_msas(complex, MsaSettings())
        for template in complex.templates:
            read_template(template.path)
    return complexes


def _beside_sequences(path: Path) -> object:
    return list(read(path.with_name("t.tsv"), ReadOptions(sequences=(path,))))


def _imported(path: Path) -> object:
    """The rows of an alignment of another program; a refusal is among the unreadable files."""
    search = ImportedAlignments((path.parent,))
    found = list(search.search(["MKTAYIAKQRQISFVK"]))
    if search.unreadable:
        raise ValueError(search.unreadable[0])
    return found


def _from_server(path: Path) -> object:
    [member] = read_members(path.read_bytes(), [seeds.SERVER_FILE], 1_000_000)
    return read_alignments(member, seeds.SERVER_FILE, seeds.SERVER_QUERIES)


# Any file may begin as gzip or a zip archive.
_FILE = (OSError, EOFError, RuntimeError, zlib.error, LZMAError, zipfile.BadZipFile)
# A text may look like YAML, JSON or a table under any file name, and a workbook has one in it.
_TEXT = (*_FILE, csv.Error, yaml.YAMLError, json.JSONDecodeError, ExpatError)
_ALIGNMENT = (*_FILE, csv.Error, UnicodeDecodeError)
_GEMMI = (*_FILE, ValueError)
# PyYAML's constructors of numbers, dates and the like raise much.
_YAML_VALUES = (*_TEXT, ValueError, AttributeError, LookupError, OverflowError)
_BESIDE = seeds.BESIDE

READERS = {
    reader.name: reader
    for reader in (
        Reader("corum", "x.tsv", Damaged(seeds.CORUM), _records, _TEXT, _BESIDE),
        Reader("corum_json", "x.json", Damaged(seeds.CORUM_JSON), _records, _TEXT, _BESIDE),
        Reader("complexportal", "x.tsv", Damaged(seeds.PORTAL), _records, _TEXT, _BESIDE),
        Reader("humap", "x.csv", Damaged(seeds.HUMAP), _records, _TEXT, _BESIDE),
        Reader("pairs", "x.csv", Damaged(seeds.PAIRS), _records, _TEXT, _BESIDE),
        Reader("alphapulldown", "x.txt", Damaged(seeds.PULLDOWN), _records, _TEXT, _BESIDE),
        Reader("fasta", "x.fasta", Damaged(seeds.FASTA), _records, _TEXT, _BESIDE),
        Reader("colabfold", "x.csv", Damaged(seeds.COLABFOLD), _records, _TEXT, _BESIDE),
        Reader("packed", "x.dat", Damaged(seeds.packed()), _records, _TEXT, _BESIDE),
        Reader(
            "workbook",
            "x.xlsx",
            Damaged(seeds.WORKBOOK, seeds.as_workbook),
            _records,
            _TEXT,
            _BESIDE,
        ),
        Reader("yaml", "x.yaml", Damaged(seeds.YAML), _records, _TEXT, _BESIDE),
        Reader("jobs", "x.json", Damaged(seeds.JOBS), _records, _TEXT, _BESIDE),
        Reader(
            "embedded",
            "x.json",
            Damaged(seeds.EMBEDDED),
            _with_embedded_files,
            (*_TEXT, *_GEMMI),
            _BESIDE,
        ),
        Reader(
            "sequences",
            "x.fasta",
            Damaged((seeds.SEQUENCES,)),
            _beside_sequences,
            _TEXT,
            {"t.tsv": seeds.TABLE},
        ),
        Reader("copies", "x.tsv", Damaged(seeds.COPIES), read_copy_numbers, _TEXT),
        Reader("obsolete", "x.txt", Damaged(seeds.OBSOLETE), read_replacements, _TEXT),
        Reader("a3m_input", "x.a3m", Damaged(seeds.A3M), _records, _TEXT, _BESIDE),
        Reader("a3m", "x.a3m", Damaged(seeds.A3M), lambda path: read_msa(path, 100), _ALIGNMENT),
        Reader(
            "msa_csv",
            "x.csv",
            Damaged(seeds.MSA_CSV),
            lambda path: read_msa(path, 100, True),
            _ALIGNMENT,
        ),
        Reader(
            "stored",
            "x.csv.gz",
            Damaged(seeds.MSA_CSV, seeds.gzipped),
            lambda path: read_msa(path, 100, True),
            _ALIGNMENT,
        ),
        Reader(
            "index",
            INDEX_FILE,
            Damaged(seeds.INDEX),
            lambda path: list(read_index(path.parent)),
        ),
        Reader("stockholm", "x.sto", Damaged(seeds.STOCKHOLM), _imported, _ALIGNMENT),
        Reader("imported_a3m", "x.a3m", Damaged(seeds.A3M), _imported, _ALIGNMENT),
        Reader("imported_csv", "x.csv", Damaged(seeds.MSA_CSV), _imported, _ALIGNMENT),
        Reader(
            "server",
            "x.tar",
            Damaged(seeds.ARCHIVES, seeds.with_checksums),
            _from_server,
            (*_FILE, tarfile.TarError, ValueError, OverflowError),
            refusal=DamagedArchiveError,
        ),
        Reader("settings", "x.yaml", Damaged(seeds.SETTINGS), load, _YAML_VALUES),
        Reader("cif", "x.cif", Damaged(seeds.CIF), read_template, _GEMMI),
        Reader("pdb", "x.pdb", Damaged(seeds.PDB), read_template, _GEMMI),
        Reader("structured", "x.yaml", make_yaml, _records, _TEXT, _BESIDE),
        Reader("features", "x.yaml", make_yaml, _featurized, _TEXT, _BESIDE),
    )
}
