"""Thresholds at false-positive rates, against counting; labels; and the command."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from foldcp.pipeline.cli import app
from foldcp.pipeline.evaluation.calibrate import calibrate
from foldcp.pipeline.evaluation.labels import read_labels
from foldcp.pipeline.storage.results.pair_rows import pair_rows
from foldcp.pipeline.storage.store import Store
from tests.support.synthetic_results import INFO, NO_SCORES, finishing, result

NUM_POSITIVES = 8
NUM_NEGATIVES = 20


def _values() -> dict[str, tuple[float, float | None]]:
    """ipSAE and smallest PAE of each complex; two have no PAE."""
    generator = random.Random(3)
    names = [f"p{n}" for n in range(NUM_POSITIVES)] + [f"n{n}" for n in range(NUM_NEGATIVES)]
    values: dict[str, tuple[float, float | None]] = {
        name: (generator.random() + 0.4 * (name[0] == "p"), 30 * generator.random())
        for name in names
    }
    return values | {"p0": (values["p0"][0], None), "n0": (values["n0"][0], None)}


VALUES = _values()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("calibrate") / "run"
    with finishing(Store.open(out, INFO)) as store:
        for name, (ipsae, pae) in VALUES.items():
            rows, _ = result(name, "done")
            rows["complexes"] = [row | {"rank": row["sample"]} for row in rows["complexes"]]
            nulls = NO_SCORES
            scores = {"ipsae_d0res": ipsae, "pae_min": pae}
            ends = {"accession_a": "P0", "accession_b": name.upper()}
            rows["interfaces"] = [nulls | row | scores | ends for row in rows["interfaces"]]
            rows["pairs"] = pair_rows(rows["interfaces"])
            store.put(name, rows, {})
    return out


def _files(folder: Path, as_pairs: bool) -> tuple[Path, Path]:
    paths = (folder / "positives.txt", folder / "negatives.txt")
    for path, letter in zip(paths, "pn", strict=True):
        names = [name for name in VALUES if name[0] == letter]
        lines = [f"{name.upper()}\tP0" if as_pairs else f"name of {name}" for name in names]
        path.write_text("# known\n" + "\n".join(lines) + "\n")
    return paths


def _row(rows: pd.DataFrame, score: str, rate: float) -> Any:
    (row,) = rows[rows["score"].eq(score) & rows["fpr"].eq(rate)].to_dict("records")
    return row


@pytest.mark.parametrize("as_pairs", [True, False])
def test_thresholds_keep_the_false_positive_rate(as_pairs: bool, run: Path, tmp_path: Path) -> None:
    found = calibrate(run, *_files(tmp_path, as_pairs), (0.05, 0.1))
    positives = [np.float32(VALUES[name][0]) for name in VALUES if name[0] == "p"]
    negatives = [np.float32(VALUES[name][0]) for name in VALUES if name[0] == "n"]
    for rate in (0.05, 0.1):
        row = _row(found.rows, "ipsae_d0res_max", rate)
        false = [value for value in negatives if value > row["threshold"]]
        assert len(false) == int(rate * NUM_NEGATIVES)
        assert row["threshold"] in negatives
        assert row["tpr"] == np.mean([value > row["threshold"] for value in positives])
        assert row["threshold_low"] <= row["threshold"] <= row["threshold_high"]
        assert 0 <= row["tpr_low"] <= row["tpr"] <= row["tpr_high"] <= 1
        both = [(p > n) + (p == n) / 2 for p in positives for n in negatives]
        assert row["auroc"] == pytest.approx(np.mean(both))
    assert not found.warnings


def test_a_low_score_is_better_for_errors_and_null_is_the_worst(run: Path, tmp_path: Path) -> None:
    name = "pae_min_mean"
    row = _row(calibrate(run, *_files(tmp_path, True), (0.1,)).rows, name, 0.1)
    pae = {name: np.inf if value is None else value for name, (_, value) in VALUES.items()}
    false = [key for key in pae if key[0] == "n" and pae[key] < row["threshold"] - 1e-5]
    true = [key for key in pae if key[0] == "p" and pae[key] < row["threshold"] - 1e-5]
    assert len(false) == 2
    assert row["tpr"] == len(true) / NUM_POSITIVES
    assert row["threshold_low"] <= row["threshold"] <= row["threshold_high"]


def test_what_the_labels_lack_is_a_warning(run: Path, tmp_path: Path) -> None:
    positives, negatives = _files(tmp_path, True)
    positives.write_text(positives.read_text() + "Q1\tQ2\n")
    found = calibrate(run, positives, negatives, (0.01,))
    assert found.warnings == (
        f"{positives}: 1 of 9 are not in {run}",
        "false-positive rate 0.01: 20 negatives are too few, it takes 100; the threshold is above "
        "all of them",
    )
    row = _row(found.rows, "ipsae_d0res_max", 0.01)
    assert row["threshold"] == max(np.float32(VALUES[n][0]) for n in VALUES if n[0] == "n")


@pytest.mark.parametrize(
    ("positives", "negatives", "error"),
    [
        ("# nothing\n", "a b\n", "positives.txt: no names of complexes and no pairs"),
        ("P1\tP2\tP3\n", "a b\n", "positives.txt: line 1: 'P1.tP2.tP3'; expected the name"),
        ("P1,P2\nP3\n", "a b\n", "positives.txt: has both names of complexes and pairs"),
        ("name of p1\n", "P0 N1\n", "one names complexes, the other pairs"),
        ("P1 P0\n", "P0 P1\n", "'P0 P1' is in .*positives.txt, too"),
        ("P1 P0\n", "Q1 Q2\n", "negatives.txt: none of its 1 labels is in"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    positives: str, negatives: str, error: str, run: Path, tmp_path: Path
) -> None:
    paths = (tmp_path / "positives.txt", tmp_path / "negatives.txt")
    paths[0].write_text(positives)
    paths[1].write_text(negatives)
    with pytest.raises(ValueError, match=error):
        calibrate(run, *paths)


def test_labels_are_pairs_in_any_order_and_with_any_separator(tmp_path: Path) -> None:
    for separator in "\t,; ":
        (tmp_path / "l").write_text(f"P2{separator}P1\nP1{separator}P2\n")
        assert read_labels(tmp_path / "l").labels == (("P1", "P2"),)


def test_command_writes_a_table(run: Path, tmp_path: Path) -> None:
    positives, negatives = map(str, _files(tmp_path, True))
    command = ["calibrate", str(run), "--positives", positives, "--negatives", negatives]
    done = CliRunner().invoke(app, [*command, "--fpr", "0.1", "--csv", str(tmp_path / "t.csv")])
    assert done.exit_code == 0, done.output
    assert "ipsae_d0res_max" in done.output
    assert done.output.splitlines()[0].startswith("score ") and "\\x0a" not in done.output
    rows = pd.read_csv(tmp_path / "t.csv")
    assert _row(rows, "ipsae_d0res_max", 0.1)["num_negatives"] == NUM_NEGATIVES
    assert CliRunner().invoke(app, [*command, "--fpr", "x"]).exit_code != 0
