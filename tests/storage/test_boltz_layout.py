"""File names, keys, orientation and order of the files for tools around Boltz, against what
Boltz 2.2.1 writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest

from foldcp.features.featurize import Layout
from foldcp.pipeline.storage.results.boltz_layout import boltz_files, confidence_summary, file_stem
from foldcp.predict import Prediction
from foldcp.structure.predicted import PredictedStructure
from tests.support.synthetic import synthetic_layout, synthetic_prediction


def written(folder: Path, files: dict[str, bytes | Callable[[Path], None]]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)


@pytest.fixture
def fold() -> tuple[Layout, Prediction]:
    layout = synthetic_layout(
        [
            ("protein", ["ALA", "MSE"]),
            ("ligand", ["ZN"]),
            ("protein", ["GLY", "ALA", "SER"]),
        ]
    )
    prediction = synthetic_prediction(layout, 3)
    scores = [
        replace(s, confidence_score=x)
        for s, x in zip(prediction.scores, [0.2, 0.9, 0.2], strict=True)
    ]
    return layout, replace(prediction, scores=scores)


def structures_of(fold: tuple[Layout, Prediction]) -> list[PredictedStructure]:
    layout, prediction = fold
    samples = zip(prediction.coords, prediction.plddt, strict=True)
    return [PredictedStructure(layout, coords, plddt, "x 1/2") for coords, plddt in samples]


def test_boltz_files_are_named_by_stem_and_rank(
    fold: tuple[Layout, Prediction], tmp_path: Path
) -> None:
    _, prediction = fold
    written(tmp_path, boltz_files("x_1_2", structures_of(fold), prediction, write_pde=True))
    folder = tmp_path / "predictions" / "x_1_2"
    kinds = ["", "confidence_", "plddt_", "pae_", "pde_"]
    ends = {"": "cif", "confidence_": "json"}
    expected = {
        f"{kind}x_1_2_model_{n}.{ends.get(kind, 'npz')}" for kind in kinds for n in range(3)
    }
    assert {path.name for path in folder.iterdir()} == expected
    for rank, sample in enumerate(
        [1, 0, 2]
    ):  # by confidence score; equal ones in the order they were drawn
        name = f"x_1_2_model_{rank}"
        for kind, array in (
            ("plddt", prediction.plddt),
            ("pae", prediction.pae),
            ("pde", prediction.pde),
        ):
            with np.load(folder / f"{kind}_{name}.npz") as file:
                assert file.files == [kind] and file[kind].dtype == np.float32
                np.testing.assert_array_equal(file[kind], array[sample])
        structure = gemmi.read_structure(str(folder / f"{name}.cif"))
        positions = np.array([site.atom.pos.tolist() for site in structure[0].all()])
        assert np.abs(positions - prediction.coords[sample]).max() < 1e-3


def test_confidence_summary_is_that_of_boltz(
    fold: tuple[Layout, Prediction], tmp_path: Path
) -> None:
    _, prediction = fold
    files = boltz_files("x", structures_of(fold), prediction)
    assert not any("pde" in path for path in files)
    content = files["predictions/x/confidence_x_model_0.json"]
    assert isinstance(content, bytes)
    found = json.loads(content)
    scores = prediction.scores[1]
    assert list(found) == [
        "confidence_score",
        "ptm",
        "iptm",
        "ligand_iptm",
        "protein_iptm",
        "complex_plddt",
        "complex_iplddt",
        "complex_pde",
        "complex_ipde",
        "chains_ptm",
        "pair_chains_iptm",
    ]
    assert found["confidence_score"] == 0.9 and found["complex_ipde"] == scores.complex_ipde
    assert list(found["chains_ptm"]) == ["0", "1", "2"]
    pairs = scores.pair_iptm_boltz
    for a in range(3):
        assert found["chains_ptm"][str(a)] == pytest.approx(pairs[a, a])
        for b in range(3):  # Boltz: first the scored chain, then the chain with the frames
            assert found["pair_chains_iptm"][str(b)][str(a)] == pytest.approx(pairs[a, b])


def test_boltz_files_needs_the_whole_pae(fold: tuple[Layout, Prediction]) -> None:
    _, prediction = fold
    with pytest.raises(AssertionError):
        boltz_files("x", structures_of(fold), replace(prediction, pae=[]))
    with pytest.raises(AssertionError):
        boltz_files("x", structures_of(fold), replace(prediction, pde=[]), write_pde=True)


KEY = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.b-c+d_1", "a.b-c+d_1"),
        ("A.B-C+D_1", "A.B-C+D_1"),
        ("a b", "a_b-01234567"),
        ("a/b", "a_b-01234567"),
        ("CORUM:12 (human)", "CORUM_12__human_-01234567"),
        ("../../etc", "_.._etc-01234567"),
        ("..", "_-01234567"),
        (".hidden", "hidden-01234567"),
        ("", "_-01234567"),
        ("line\n", "line_-01234567"),
        ("é" * 3, "___-01234567"),
        ("x" * 100, "x" * 100),
        ("x" * 101, "x" * 91 + "-01234567"),
        ("中" * 90, "_" * 90 + "-01234567"),
        ("a_b-01234567", "a_b-01234567-01234567"),  # or it could be the stem of `a b`
        ("\ud800", "_-01234567"),
    ],
)
def test_file_stem_replaces_what_a_file_name_cannot_hold(
    name: str, stem: str, tmp_path: Path
) -> None:
    assert file_stem(name, KEY) == stem
    assert len(stem) <= 100
    (tmp_path / f"confidence_{stem}_model_10.json").touch()


def test_file_stem_of_a_repeated_name_ends_in_the_key() -> None:
    assert file_stem("a", KEY, is_repeated=True) == "a-01234567"


def test_file_stem_differs_for_names_that_look_alike() -> None:
    names = [
        "a/b",
        "a_b",
        "a b",
        "a:b",
        "..",
        ".",
        "_",
        "",
        "x" * 300,
        "x" * 301,
        "中" * 90,
        "中" * 91,
        "a",
        "A",
    ]
    stems = [file_stem(name, hashlib.sha256(name.encode()).hexdigest()) for name in names]
    assert len(set(stems)) == len(names)


def test_confidence_summary_has_0_where_a_score_does_not_apply() -> None:
    layout = synthetic_layout([("protein", ["ALA"])])
    scores = synthetic_prediction(layout, 1).scores[0]
    nan = float("nan")
    without = replace(scores, iptm=nan, ligand_iptm=nan, protein_iptm=nan, complex_ipde=nan)
    found = confidence_summary(without)
    names = ("iptm", "ligand_iptm", "protein_iptm", "complex_ipde")
    assert [found[name] for name in names] == [0.0] * 4 and found["ptm"] == scores.ptm
