"""Nearly valid files, 2,000 a reader: each is read, or refused in a line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz import seeds
from tests.fuzz.grammar import (
    BATCH,
    Files,
    nearly_valid_archives,
    nearly_valid_text,
    nearly_valid_trees,
)
from tests.fuzz.readers import READERS, Reader
from tests.fuzz.run import Tally, prepared, try_input


def with_line_ends(inputs: list[bytes]) -> list[bytes]:
    """The inputs with an end of their last line, without which it does not count."""
    return [data + b"\n" for data in inputs]


NUM_INPUTS = 2_000  # a reader
FILES: dict[str, Files] = {
    "corum": nearly_valid_text(seeds.CORUM, "\t,;"),
    "corum_json": nearly_valid_trees(seeds.CORUM_JSON),
    "complexportal": nearly_valid_text(seeds.PORTAL, "\t|(,"),
    "humap": nearly_valid_text(seeds.HUMAP, ", "),
    "fasta": nearly_valid_text(seeds.FASTA, "|: ="),
    "colabfold": nearly_valid_text(seeds.COLABFOLD, ",:"),
    "workbook": nearly_valid_text(seeds.WORKBOOK, '<>" ', seeds.as_workbook),
    "yaml": nearly_valid_trees(seeds.YAML, as_yaml=True),
    "jobs": nearly_valid_trees(seeds.JOBS),
    "embedded": nearly_valid_trees(seeds.EMBEDDED),
    "sequences": nearly_valid_text((seeds.SEQUENCES,), "| "),
    "copies": nearly_valid_text(seeds.COPIES, "\t;"),
    "obsolete": nearly_valid_text(seeds.OBSOLETE, " ,"),
    "a3m_input": nearly_valid_text(seeds.A3M, " \t,-"),
    "a3m": nearly_valid_text(seeds.A3M, " \t,-"),
    "msa_csv": nearly_valid_text(seeds.MSA_CSV, ","),
    "stored": nearly_valid_text(seeds.MSA_CSV, ",", seeds.gzipped),
    "index": nearly_valid_trees(seeds.INDEX).map(with_line_ends),
    "stockholm": nearly_valid_text(seeds.STOCKHOLM, " ."),
    "imported_a3m": nearly_valid_text(seeds.A3M, " \t,-"),
    "imported_csv": nearly_valid_text(seeds.MSA_CSV, ","),
    "server": nearly_valid_archives(),
    "settings": nearly_valid_trees(seeds.SETTINGS, as_yaml=True),
    "cif": nearly_valid_text(seeds.CIF, " ", encoded=False),
    "pdb": nearly_valid_text(seeds.PDB, " ", encoded=False),
}


def feed(reader: Reader, files: Files) -> Tally:
    """What became of the files; the smallest that does what it should not fails the test."""
    tally = Tally(reader.name)

    @settings(
        max_examples=NUM_INPUTS // BATCH,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(files)
    def batch(inputs: list[bytes]) -> None:
        for data in inputs:
            path.write_bytes(data)
            finding = try_input(reader, path, data, tally)
            assert finding is None, f"{finding.reason}\n{finding.location}\n{data!r}"

    with prepared(reader) as path:
        batch()
    return tally


@pytest.mark.parametrize("name", FILES)
def test_nearly_valid_files_are_read_or_refused(name: str) -> None:
    tally = feed(READERS[name], FILES[name])
    assert tally.num_read > NUM_INPUTS // 200
    assert tally.num_refused > NUM_INPUTS // 200


def test_nearly_valid_files_find_a_fault_and_make_it_small() -> None:
    def fail(path: Path) -> None:
        if b'"extra"' in path.read_bytes():
            raise KeyError("extra")

    reader = Reader("made", "x.json", lambda rng: b"", fail, (KeyError,))
    with pytest.raises(AssertionError, match="KeyError: 'extra'"):
        feed(reader, nearly_valid_trees(seeds.CORUM_JSON))
