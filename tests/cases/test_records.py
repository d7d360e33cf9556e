"""Cases 07, 08, 20 and 24: records, their names, exports of CORUM and inputs of other programs."""

from __future__ import annotations

import pytest

from foldcp.pipeline.storage.results.boltz_layout import file_stem
from tests.cases.support import case, error, needs_cases, plan

pytestmark = needs_cases


def test_07_records_of_one_chain_are_told_to_be_joined() -> None:
    planned = plan(case(7) / "two_records.fasta")
    assert planned.sizes == {"chain_A": 16, "chain_B": 11}
    [warning] = planned.warnings
    assert "2 records of one chain" in warning and "join the chains of one complex" in warning


def test_07_names_spaces_and_headers() -> None:
    assert plan(case(7) / "spaces.fasta").sizes == {"pair one": 27, "pair two": 27}
    assert plan(case(7) / "free_text.fasta").sizes == {"k1": 16, "k2": 11}
    assert plan(case(7) / "rcsb.fasta").sizes == {"4XYZ_1": 16, "4XYZ_2": 11}


def test_07_empty_parts_have_a_reason() -> None:
    planned = plan(case(7) / "colons.fasta")
    assert planned.tasks == {} and planned.reasons == {
        "gap": "chain B: the protein sequence is empty",
        "trail": "chain C: the protein sequence is empty",
        "lead": "chain A: the protein sequence is empty",
        "slash": "chain A: invalid letters '/' in the protein sequence",
    }


def test_08_names_are_kept_and_their_files_told_apart() -> None:
    tasks = plan(case(8) / "names.csv").tasks
    assert len(tasks) == 6 and {"TP53/MDM2", "TP53:MDM2", "../../evil", 'a b,c "q"'} <= set(tasks)
    stems = [file_stem(task.name, task.key) for task in tasks.values()]
    assert len(set(stems)) == 6 and not any(set("/:\" ,'") & set(stem) for stem in stems)
    assert plan(case(8) / "space.fasta").sizes == {"complex 1": 27, "complex 2": 28}
    for name in ("long.fasta", "long_score.csv"):
        for task in plan(case(8) / name).tasks.values():
            assert len(file_stem(task.name, task.key)) <= 100


def test_20_jobs_of_alphafold_and_chai_are_read() -> None:
    job = plan(case(20) / "af3.json").task.complex
    assert job.name == "pair of two" and [chain.name for chain in job.chains] == list("ABCD")
    assert plan(case(20) / "server.json").sizes == {"server job": 33}
    assert plan(case(20) / "chai.fasta").sizes == {"chai": 19}


def test_20_other_programs_are_named() -> None:
    assert "give a file that has them with --sequences" in error(case(20) / "alphapulldown.txt")
    assert "a design of BoltzGen" in error(case(20) / "boltzgen.yaml")


@pytest.mark.parametrize(
    "name",
    [
        "allComplexes.txt.zip",
        "commas.csv",
        "commas.csv.gz",
        "one_bad_quote.txt",
        "semicolons.csv",
        "tabs.txt",
        "tabs_crlf.txt",
    ],
)
def test_24_exports_of_corum(name: str) -> None:
    planned = plan(case(24) / name, sequences=(case(24) / "seqs.fasta",))
    assert planned.sizes == {"11": 27, "12": 35, "13": 39} and planned.reasons == {}


def test_24_exports_that_are_damaged_or_no_tables() -> None:
    sequences = (case(24) / "seqs.fasta",)
    unquoted = plan(case(24) / "unquoted.txt", sequences=sequences)
    assert unquoted.sizes == {"12": 35, "13": 39}
    assert unquoted.reasons["11"] == "row 1 has 7 columns, the table 11"
    title = plan(case(24) / "comma_in_title.csv", sequences=sequences)
    assert title.sizes == {"11": 27}
    assert "a web page, not data" in error(case(24) / "index.html", sequences=sequences)
    assert "not an Excel workbook" in error(case(24) / "corum.xlsx", sequences=sequences)
