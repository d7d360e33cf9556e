"""The choice of complexes by organism, name and size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foldcp.pipeline.inputs.input_options import InputOptions
from foldcp.pipeline.inputs.input_spec import InputSpec, records
from foldcp.pipeline.inputs.input_warnings import input_warnings
from foldcp.pipeline.inputs.organisms import is_of_organism

TABLE = """complex_id\tcomplex_name\torganism\tsubunits_uniprot_id
1\ta\tHuman\tP00001
2\tb\tHuman\tP00001;P00002
3\tc\tMouse\tP00001;P00002;P00003
4\td\tMouse\tQ99999
"""


def spec(folder: Path, **options: Any) -> InputSpec:
    (folder / "s.fasta").write_text(">P00001\nMKTAY\n>P00002\nGSHW\n>P00003\nCCW\n")
    (folder / "db.tsv").write_text(TABLE)
    given = InputOptions(sequences=(folder / "s.fasta",), **options)
    return InputSpec(folder / "db.tsv", given)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "1234"),
        ({"organism": " mouse"}, "34"),
        ({"ids": ("2", "4")}, "24"),
        ({"ids": ("2",), "organism": "Human"}, "2"),
        ({"min_chains": 2}, "234"),  # a record that is no complex has no size
        ({"max_chains": 2}, "124"),
        ({"min_residues": 9, "max_residues": 9}, "24"),
        ({"min_chains": 2, "max_chains": 2, "organism": "Human"}, "2"),
    ],
)
def test_records_that_options_choose(
    tmp_path: Path, options: dict[str, Any], expected: str
) -> None:
    left_out: set[str] = set()
    found = [record.name for record in records(spec(tmp_path, **options), left_out)]
    assert found == list(expected)
    assert left_out == set("1234") - set(expected)


@pytest.mark.parametrize(
    ("written", "wanted", "is_meant"),
    [
        ("Human", "human", True),
        ("9606", "Human", True),
        ("9606", "Homo sapiens", True),
        ("Human", "9606", True),
        ("Homo sapiens (Human)", "9606", True),
        ("559292", "Saccharomyces cerevisiae", True),
        ("Human", "Hum", True),  # the beginning of a name, as before
        ("96061", "9606", False),
        ("960", "9606", False),
        ("10090", "Human", False),
        ("Mouse-ear cress", "10090", False),
        ("Ratite", "Rattus norvegicus", False),
        ("", "Human", False),
        ("", "", True),
        ("12345", "12345", True),
    ],
)
def test_organisms_that_mean_the_same(written: str, wanted: str, is_meant: bool) -> None:
    assert is_of_organism(written, wanted) is is_meant


def test_organism_of_complex_portal(tmp_path: Path) -> None:
    (tmp_path / "s.fasta").write_text(">P00001\nMKTAY\n")
    columns = "#Complex ac\tTaxonomy identifier\tExpanded participant list\n"
    rows = "CPX-1\t9606\tP00001(1)\nCPX-2\t10090\tP00001(1)\n"
    (tmp_path / "cp.tsv").write_text(columns + rows)
    options = InputOptions(sequences=(tmp_path / "s.fasta",), organism="Human")
    found = records(InputSpec(tmp_path / "cp.tsv", options))
    assert [record.name for record in found] == ["CPX-1"]


def test_records_keep_their_numbers(tmp_path: Path) -> None:
    assert [record.index for record in records(spec(tmp_path, organism="Mouse"))] == [2, 3]


def test_names_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("3\r\n\n 1 \n77\n")
    source = spec(tmp_path, ids_file=tmp_path / "ids.txt", ids=("2",))
    assert [record.name for record in records(source)] == ["1", "2", "3"]
    assert input_warnings(source, []) == [
        f"{tmp_path}/ids.txt: 1 of 3 names are not in the input: 77"
    ]


def test_names_that_occur_nowhere(tmp_path: Path) -> None:
    found = records(spec(tmp_path, ids=("2", "77", "x")))
    assert next(found).name == "2"
    with pytest.raises(ValueError, match="--id: the input has no complex named 77, x"):
        list(found)
    with pytest.raises(ValueError, match="--id: the input has no complex named 77"):
        records(spec(tmp_path, ids=("77",)))


def test_options_that_choose_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"db\.tsv: no complex of organism 'Rat'"):
        records(spec(tmp_path, organism="Rat"))
    options = {"organism": "Human", "min_chains": 3, "max_residues": 20_000}
    with pytest.raises(ValueError, match="'Human', at least 3 chains, at most 20,000 residues"):
        records(spec(tmp_path, **options))


@pytest.mark.parametrize("what", ["chains", "residues"])
def test_ranges_that_are_empty(tmp_path: Path, what: str) -> None:
    with pytest.raises(ValueError, match=f"--min-{what} 3 is above --max-{what} 2"):
        records(spec(tmp_path, **{f"min_{what}": 3, f"max_{what}": 2}))
