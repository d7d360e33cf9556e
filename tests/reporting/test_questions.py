"""The questions of docs/results.md, in SQL and pandas, on a small run."""

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pandas as pd
import pytest

import foldcp
from foldcp.pipeline.storage.results.pair_rows import pair_rows
from foldcp.pipeline.storage.store import Store
from tests.support.synthetic_results import ATTEMPT, INFO, NO_SCORES, finishing, result

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
ACCESSIONS = {"A": "P00001", "B": "P00002"}


def _questions() -> Iterator[tuple[str, str, str]]:
    """(question, SQL, Python) of the page."""
    section = PAGE.read_text().partition("## Questions")[2].partition("\n## ")[0]
    parts = re.split(r"\n(?=[A-Z][^\n]*\?\n)", section)[1:]
    for part in parts:
        question, _, code = part.partition("\n")
        sql, python = re.split(r"\n\n(?=    (?!\s))", code.strip("\n"))
        yield question, dedent(sql), dedent(python)


QUESTIONS = list(_questions())


def _interfaces(rows: list[dict[str, Any]], ipsae: float, contacts: int) -> list[dict[str, Any]]:
    return [
        NO_SCORES
        | row
        | {"ipsae_d0res": ipsae, "num_contacts": contacts}
        | {f"accession_{end}": ACCESSIONS[row[f"chain_{end}"]] for end in "ab"}
        | {"interface_residues_a": "A:1-4", "interface_residues_b": "B:2"}
        for row in rows
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run RUN, whose complex k1 has good interfaces and k2 none, and a run CORUM-RUN without."""
    folder = tmp_path_factory.mktemp("questions")
    with finishing(Store.open(folder / "CORUM-RUN", INFO)):
        pass
    with finishing(Store.open(folder / "RUN", INFO)) as store:
        for key, ipsae, contacts in (("k1", 0.9, 5), ("k2", 0.1, 0)):
            rows, _ = result(key, "done")
            for row in rows["complexes"]:
                row |= {"rank": row["sample"], "num_chains": 2}
                row |= {"source_go_ids": ["GO:0016514"] if key == "k1" else []}
            rows["interfaces"] = _interfaces(rows["interfaces"], ipsae, contacts)
            rows["pairs"] = pair_rows(rows["interfaces"])
            shared = {name: rows["interfaces"][0][name] for name in ("key", "name", "checkpoint")}
            rows["chains"] = [
                shared
                | {"untrained": True, "sample": sample, "chain": chain, "chain_index": index}
                | {"molecule_type": "protein", "entity": index + 1, "accession": accession}
                | {"num_residues": 9, "num_tokens": 9, "sequence_sha256": chain, "msa_depth": 1}
                for sample in range(2)
                for index, (chain, accession) in enumerate(ACCESSIONS.items())
            ]
            store.put(key, rows, {})
        store.put_attempt(ATTEMPT | {"seconds": 3600.0, "group_size": 2})
    return folder


def test_there_are_ten_questions() -> None:
    assert len(QUESTIONS) == 10


@pytest.mark.parametrize(("question", "sql", "python"), QUESTIONS, ids=lambda text: text[:40])
def test_questions_are_answered(
    question: str, sql: str, python: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with foldcp.connect("RUN") as connection:
        by_sql = connection.sql(sql).df()
    *statements, last = _statements(python)
    names: dict[str, Any] = {"tables": foldcp.read_run("RUN"), "foldcp": foldcp}
    for statement in statements:
        exec(statement, names)
    by_pandas = eval(last, names)
    assert len(by_sql), question
    if isinstance(by_pandas, dict):
        by_pandas = [name for name, is_connected in by_pandas.items() if is_connected]
    assert len(by_pandas), question
    if isinstance(by_pandas, pd.DataFrame) and "name" in by_pandas and "name" in by_sql:
        assert set(by_sql["name"]) <= set(by_pandas["name"])


def _statements(code: str) -> list[str]:
    """The statements of a block, the last of which is an expression."""
    return [part for part in re.split(r"\n(?=\S)(?![})\]])", code) if part.strip()]


def test_only_the_connected_complex_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sql,) = [sql for question, sql, _ in QUESTIONS if "connect every chain" in question]
    with foldcp.connect(folder / "RUN") as connection:
        assert connection.sql(sql).fetchall() == [("name of k1",)]
