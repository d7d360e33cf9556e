"""Rows of a fold: each directed pair once per sample, in the direction of the scores, ready for
the tables.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest

from foldcp.complex import Chain, Complex, InvalidComplex
from foldcp.features.layout import Layout
from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import FoldShape
from foldcp.pipeline.scheduling.types import Attempt
from foldcp.pipeline.storage.results.invalid_records import invalid_rows
from foldcp.pipeline.storage.results.pae_file import PaeFile
from foldcp.pipeline.storage.results.provenance import Provenance
from foldcp.pipeline.storage.results.result_files import result_files
from foldcp.pipeline.storage.results.result_rows import (
    attempt_row,
    failed_rows,
    one_line_notes,
    result_rows,
)
from foldcp.pipeline.storage.schemas import TABLES
from foldcp.pipeline.storage.store import Store
from foldcp.pipeline.storage.tables import read_table
from foldcp.predict import Prediction
from tests.support.synthetic import pae_blocks_of, synthetic_layout, synthetic_prediction
from tests.support.synthetic_results import INFO, finishing

PROVENANCE = Provenance("untrained:tiny", True, seed=7, num_ranks=2, precision="fp32", max_rows=50)


@pytest.fixture
def fold(tmp_path: Path) -> tuple[Task, Layout, Prediction]:
    alignment = tmp_path / "a.a3m"
    alignment.write_text(">q\nASG\n>h\nA-G\n>i\nASA\n")
    complex = Complex(
        "c1",
        (
            Chain("A", "protein", "ASG", accession="P1", msa=alignment),
            Chain("lig", "ligand", ccd=("ZN",)),
            Chain("AB", "protein", "GA", accession="P2-3"),
        ),
        title="The <first> complex",
        organism="Human",
        source="corum.tsv",
    )
    layout = synthetic_layout(
        [
            ("protein", ["ALA", "SER", "GLY"]),
            ("ligand", ["ZN"]),
            ("protein", ["GLY", "ALA"]),
        ],
        ["A", "lig", "AB"],
        [2, 1, 1],
    )
    layout.chain_coverage[0] = np.array([2, 1, 2], dtype=np.int32)
    return Task(complex, "k" * 32, 6, 3), layout, synthetic_prediction(layout, 4)


def test_result_rows_has_one_interface_row_per_directed_pair_and_sample(
    fold: tuple[Task, Layout, Prediction],
) -> None:
    task, layout, prediction = fold
    interfaces = result_rows(task, layout, prediction, PROVENANCE)["interfaces"]
    names = ["A", "lig", "AB"]
    found = [(row["sample"], row["chain_a"], row["chain_b"]) for row in interfaces]
    assert len(found) == len(set(found)) == 4 * 3 * 2
    for row in interfaces:
        a = names.index(row["chain_a"])
        b = names.index(row["chain_b"])
        scores = prediction.scores[row["sample"]]
        for column, field in [
            ("iptm", "pair_iptm"),
            ("iptm_boltz", "pair_iptm_boltz"),
            ("pae_min", "pae_min"),
        ]:
            assert row[column] == pytest.approx(getattr(scores, field)[a, b], nan_ok=True)
        assert row["ipsae_d0dom"] == pytest.approx(scores.ipsae_d0dom[a, b], nan_ok=True)
        assert row["num_contacts"] == scores.contacts[a, b]
        assert (
            row["accession_a"] == ["P1", "", "P2-3"][a]
            and row["accession_b"] == ["P1", "", "P2-3"][b]
        )


def test_result_rows_of_chains_and_of_the_complex(
    fold: tuple[Task, Layout, Prediction],
) -> None:
    task, layout, prediction = fold
    rows = result_rows(task, layout, prediction, PROVENANCE)
    assert [(row["sample"], row["chain"]) for row in rows["chains"]] == [
        (s, c) for s in range(4) for c in ("A", "lig", "AB")
    ]
    last = rows["chains"][-1]
    assert last["plddt"] == pytest.approx(prediction.scores[3].chain_plddt[2])
    assert last["ptm"] == pytest.approx(prediction.scores[3].chain_ptm[2])
    assert last["sequence_sha256"] == hashlib.sha256(b"GA").hexdigest()
    assert [(r["num_residues"], r["num_tokens"], r["msa_depth"]) for r in rows["chains"][:3]] == [
        (3, 3, 2),
        (1, 1, 1),
        (2, 2, 1),
    ]
    depths = [row.get("msa_column_depth") for row in rows["chains"]]
    assert [len(depth) for depth in depths[:3]] == [3, 0, 0] and depths[3:] == [None] * 9
    best = int(np.argmax([scores.confidence_score for scores in prediction.scores]))
    assert [row["rank"] for row in rows["complexes"]].index(0) == best
    assert sorted(row["rank"] for row in rows["complexes"]) == [0, 1, 2, 3]
    row = rows["complexes"][2]
    assert row["complex_ipde"] == prediction.scores[2].complex_ipde and row["seed"] == 7
    assert (
        row["num_chains"],
        row["num_residues"],
        row["num_tokens"],
        row["msa_depth"],
    ) == (3, 5, 6, 3)
    few = result_rows(task, layout, prediction, replace(PROVENANCE, max_rows=2))
    assert few["complexes"][0]["msa_depth"] == 2
    assert all(
        row["checkpoint"] == "untrained:tiny" and row["untrained"]
        for part in rows.values()
        for row in part
    )


def test_result_rows_and_files_can_be_stored(
    fold: tuple[Task, Layout, Prediction], tmp_path: Path
) -> None:
    """Done, failed and invalid, and an attempt; the files, and what was asked for beside
    them.
    """
    task, layout, prediction = fold
    other = Task(task.complex, "o" * 32, 6, 3)
    record = InvalidComplex("c9", "P99999: no sequence", "Nine", "Rat", "corum.tsv")
    attempt = Attempt(
        task,
        2,
        FoldShape(2, "fp32", 5, 50),
        1,
        (("n1", 2),),
        10.0,
        14.5,
        4.0,
        "oom",
        "out of memory",
        ("P 1 -> 2",),
    )
    started = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        write = WriteConfig(files=("boltz",), pae="all")
        blocks = partial(pae_blocks_of, prediction)
        files = result_files(task, layout, prediction, PROVENANCE, write, blocks)
        rows = result_rows(task, layout, prediction, PROVENANCE, write)
        store.put(task.key, rows, files, write)
        assert store.written(task.key) == write
        store.put(other.key, failed_rows(other, "no memory", PROVENANCE))
        ((key, rows),) = invalid_rows([record], PROVENANCE).items()
        store.put(key, rows)
        store.put_attempt(
            attempt_row(
                attempt,
                started,
                "n1:2",
                4,
                1e9,
                2e9,
                prediction.seconds,
                prediction.peak_bytes,
            )
        )
        assert store.outcomes() == {
            task.key: "done",
            other.key: "failed",
            key: "invalid",
        }
    complexes = read_table(tmp_path / "run", "complexes").to_pylist()
    assert [(r["name"], r["outcome"], r["sample"]) for r in complexes] == [
        *(("c1", "done", s) for s in range(4)),
        ("c1", "failed", None),
        ("c9", "invalid", None),
    ]
    assert complexes[4]["reason"] == "no memory" and complexes[5]["reason"] == "P99999: no sequence"
    assert complexes[5]["organism"] == "Rat" and complexes[5]["num_tokens"] is None
    chains = read_table(tmp_path / "run", "chains").to_pylist()
    assert [row["msa_column_depth"] for row in chains[:4]] == [[2, 1, 2], [], [], None]
    (row,) = read_table(tmp_path / "run", "attempts").to_pylist()
    assert row["seconds"] == 4.5 and row["seconds_sampling"] == 2.5 and row["started"] == started
    assert (row["fallbacks"], row["gpus"], row["peak_bytes"]) == ("P 1 -> 2", "n1:2", 12345)
    assert (row["predicted_bytes"], row["predicted_peak_bytes"]) == (10**9, 2 * 10**9)
    for sample in range(4):
        path = tmp_path / "run" / complexes[sample]["structure"]
        assert gemmi.read_structure(str(path))[0].count_atom_sites() == len(layout.atom_token)
        assert path.name == f"{sample}.cif.gz"
        with PaeFile(tmp_path / "run" / complexes[sample]["pae"]) as pae:
            whole = pae.read(slice(None), slice(None))
            np.testing.assert_allclose(whole, prediction.pae[sample], rtol=0, atol=0.125)
        text = gzip.decompress(path.read_bytes()).decode()
        assert "random weights" in text and "The <first> complex" in text
    assert (tmp_path / "run/predictions/c1/confidence_c1_model_3.json").exists()


# The first bytes of a file of each kind.
HEADS = {"cif.gz": b"\x1f\x8b", "cif": b"data_", "bcif": b"\x83\xaadataBlocks", "npz": b"PK"}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ({}, ["0.cif.gz", "1.cif.gz", "2.cif.gz", "3.cif.gz"]),
        ({"structures": "cif"}, ["0.cif", "1.cif", "2.cif", "3.cif"]),
        ({"structures": "bcif", "structure_samples": "best"}, [None, None, "2.bcif", None]),
        ({"structures": "none"}, [None] * 4),
        ({"structure_samples": "best", "files": ("pde",)}, [None, None, "2.cif.gz", None]),
    ],
)
def test_rows_name_the_structures_that_are_written(
    override: dict[str, Any],
    expected: list[str | None],
    fold: tuple[Task, Layout, Prediction],
    tmp_path: Path,
) -> None:
    """In the format that is asked for, of all samples or the best; matrices are beside them."""
    task, layout, prediction = fold
    order = [0.1, 0.2, 0.9, 0.3]
    scores = [
        replace(score, confidence_score=value)
        for score, value in zip(prediction.scores, order, strict=True)
    ]
    prediction = replace(prediction, scores=scores)
    write = WriteConfig(**override)
    rows = result_rows(task, layout, prediction, PROVENANCE, write)
    folder = f"structures/{task.key[:2]}/{task.key}"
    paths = [name and f"{folder}/{name}" for name in expected]
    assert [row["structure"] for row in rows["complexes"]] == paths
    files = result_files(task, layout, prediction, PROVENANCE, write)
    matrices = {f"{folder}/2_pde.npz"} if write.files else set()
    assert set(files) == {path for path in paths if path} | matrices
    for path, content in files.items():
        assert callable(content)
        content(tmp_path / "file")
        kinds = {
            "cif.gz": b"\x1f\x8b",
            "cif": b"data_",
            "bcif": b"\x83\xaadataBlocks",
            "npz": b"PK",
        }
        head = kinds[path.rpartition("/")[2].partition(".")[2]]
        assert (tmp_path / "file").read_bytes().startswith(head)


def test_result_rows_fills_every_column(
    fold: tuple[Task, Layout, Prediction],
) -> None:
    task, layout, prediction = fold
    rows = result_rows(task, layout, prediction, PROVENANCE)
    for table in ("complexes", "chains", "interfaces", "pairs"):
        assert set(rows[table][0]) == {column.name for column in TABLES[table].columns} - {
            "stale",
            "missing_accessions",
        }


def test_invalid_rows_are_keyed_by_name_and_index() -> None:
    """Not the reason, which may hold the path of a file as it was typed; records of one name
    have a key each.
    """
    record = InvalidComplex("c9", "in/a.a3m: no such file", index=3)

    def keys(*records: InvalidComplex) -> list[str]:
        return list(invalid_rows(records, PROVENANCE))

    assert keys(record) == keys(replace(record, reason="/home/me/in/a.a3m: no such file"))
    assert len(keys(record)[0]) == 32
    others = [replace(record, index=4), replace(record, name="c8")]
    assert len(set(keys(record, *others))) == 3
    assert keys(record, *others) == keys(record, *others)


def test_one_line_notes_replaces_line_breaks() -> None:
    notes = ("stoichiometry: not given;\n one copy", "msa: no alignment for P1, P2")
    assert one_line_notes(notes) == [
        "stoichiometry: not given; one copy",
        "msa: no alignment for P1, P2",
    ]
    assert one_line_notes(()) == []
