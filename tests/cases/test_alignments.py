"""Cases 02 to 05, 25 and 27, and the faults: alignments as programs and people leave them."""

from __future__ import annotations

import pytest

from foldcp.complex import Complex
from foldcp.features.featurize import featurize
from foldcp.features.msa.chain_msas import MsaSettings
from foldcp.pipeline.inputs.tasks import Task
from tests.cases.support import CASES, case, error, needs_cases, plan

pytestmark = needs_cases


def chain_depths(task: Task, max_rows: int = 8192) -> list[int]:
    """The rows of each chain's alignment as the table of chains tells them."""
    settings = MsaSettings(max_file_rows=max_rows, max_rows=2 * max_rows)
    return list(featurize(task.complex, msa=settings).layout.chain_msa_depth)


def test_02_nul_bytes_end_and_part_alignments() -> None:
    assert plan(case(2) / "single.yaml").depths == {"single": 3}
    two = plan(case(2) / "two_queries.yaml").task
    assert two.msa_depth == 2 and chain_depths(two) == [2, 1]


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("bom_a3m", 3),
        ("bom_csv", 3),
        ("crlf_a3m", 3),
        ("crlf_csv", 3),
        ("latin1_a3m", 2),
        ("semicolon_csv", 2),
    ],
)
def test_03_marks_line_ends_and_encodings(name: str, depth: int) -> None:
    assert plan(case(3) / f"{name}.yaml").depths == {name: depth}


def test_04_alignments_of_another_sequence_are_told_when_planned() -> None:
    planned = plan(case(4) / "batch", allow_outside=True)
    assert list(planned.tasks) == ["fits"]
    assert planned.reasons.keys() == {"full", "mutant"}
    full, mutant = planned.reasons["full"], planned.reasons["mutant"]
    assert "chain A" in full and "full.a3m: its query has 31 residues, but the chain 20" in full
    assert "chain A" in mutant and "residue 20 is THR, but SER in the chain" in mutant


def test_05_chains_take_their_columns_of_an_alignment_of_the_complex() -> None:
    homo = plan(case(5) / "homodimer.yaml").task
    assert homo.msa_depth == 3 and chain_depths(homo) == [3, 3]
    hetero = plan(case(5) / "hetero.yaml", "msa.corrected=true").task
    assert hetero.msa_depth == 3
    features = featurize(hetero.complex, msa=MsaSettings(corrected=True))
    assert features.paired[1].all() and not features.paired[2].any()


def test_05_a_folder_of_colabfold_is_an_input() -> None:
    planned = plan(case(5) / "msas", "msa.corrected=true", "msa.missing=error")
    assert planned.sizes == {"dimer": 29, "homo": 40, "mono": 12}
    assert planned.depths == {"dimer": 3, "homo": 3, "mono": 2}
    assert planned.warnings == [] and planned.reasons == {}
    as_yaml = plan(case(5) / "hetero.yaml", "msa.corrected=true").task.complex
    dimer = planned.tasks["dimer"].complex
    assert [c.sequence for c in dimer.chains] == [c.sequence for c in as_yaml.chains]
    assert list(dimer.digests.values()) == list(as_yaml.digests.values())
    for name in ("dimer.a3m", "homo.a3m"):
        assert isinstance(plan(case(5) / name).task.complex, Complex)


def test_05_alignments_are_found_by_the_name_of_a_complex() -> None:
    msas = (case(5) / "msas",)
    assert plan(case(5) / "queries.csv", "msa.corrected=true", msas=msas).depths == {
        "dimer": 3,
        "homo": 3,
    }
    assert plan(case(5) / "mono.csv", msas=msas).depths == {"mono": 2}
    assert plan(case(5) / "mono.fasta", msas=msas).depths == {"mono": 2}


def test_05_a_folder_without_a_fitting_alignment_is_told() -> None:
    elsewhere = case(3)
    planned = plan(case(5) / "queries.csv", msas=(elsewhere,))
    assert planned.warnings == [f"0 of 4 chains have an alignment in {elsewhere}"]


def test_25_depths_are_those_of_what_is_folded_with() -> None:
    single = case(25) / "single.yaml"
    assert plan(single).depths == {"single": 5}
    assert chain_depths(plan(single).task) == [5]
    assert plan(single, "msa.max_rows=3").depths == {"single": 3}
    assert chain_depths(plan(single).task, max_rows=3) == [3]
    assert plan(case(25) / "pair.yaml").depths == {"pair": 7}
    assert plan(case(25) / "pair.yaml", "msa.corrected=true").depths == {"pair": 5}


def test_27_one_file_spelled_in_two_ways() -> None:
    spelled = plan(case(27) / "spelled.yaml").task
    assert len({chain.msa for chain in spelled.complex.chains}) == 1
    assert "affinity is not supported" in error(case(27) / "affinity.yaml")
    assert "(line 2, column 1)" in error(case(27) / "tabs.yaml")


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("badgz", "P10001.a3m.gz: a damaged gzip file"),
        ("overflow", "P10001.csv: line 3: the key '99999999999999999999' exceeds 64 bits"),
    ],
)
def test_a_damaged_alignment_leaves_the_other_record(folder: str, reason: str) -> None:
    planned = plan(CASES / "faults" / "two.fasta", msas=(CASES / "faults" / folder,))
    assert list(planned.tasks) == ["P10002"]
    assert planned.reasons.keys() == {"P10001"} and reason in planned.reasons["P10001"]


def test_a_table_with_line_ends_of_an_old_mac() -> None:
    planned = plan(CASES / "faults" / "two.fasta", msas=(CASES / "faults" / "cr",))
    assert planned.depths == {"P10001": 2, "P10002": 1}


@pytest.mark.parametrize(
    ("folder", "reasons"),
    [
        ("emptycif", {"x": "e.cif: it has no data block"}),
        ("longmsa", {"bad": "File name too long", "tilde": "determine home directory"}),
    ],
)
def test_a_file_that_cannot_be_used_leaves_the_rest_of_a_folder(
    folder: str, reasons: dict[str, str]
) -> None:
    planned = plan(CASES / "faults" / folder)
    assert list(planned.tasks) == ["good"] and planned.reasons.keys() == reasons.keys()
    assert all(reason in planned.reasons[name] for name, reason in reasons.items())
