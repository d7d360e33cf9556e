"""The public API: its names, that it computes what the layers below do, and what it refuses."""

from __future__ import annotations

import gzip
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from biotite.structure.io.pdbx import BinaryCIFFile

import foldcp
from foldcp import predict
from foldcp.checkpoint.load import load
from foldcp.complex import Contact
from foldcp.features.featurize import featurize
from foldcp.features.steering import steering_constraints
from foldcp.pipeline.storage.run_folder import RunInfo
from foldcp.pipeline.storage.staleness import Present
from foldcp.pipeline.storage.store import Store
from foldcp.predict import Prediction, Settings
from tests.support.synthetic_results import INFO, result

SHORT: dict[str, Any] = {"samples": 2, "steps": 3, "recycling": 0}


@pytest.fixture(scope="module")
def model() -> foldcp.Model:
    return foldcp.load_model("untrained:tiny", device="cpu")


@pytest.fixture(scope="module")
def dimer() -> foldcp.Complex:
    chains = (
        foldcp.Chain("A", "protein", "MKTAYIAKQRQ"),
        foldcp.Chain("B", "protein", "GSHMLEDPV"),
    )
    return foldcp.Complex("dimer", chains)


def assert_equal(got: Prediction, expected: Prediction) -> None:
    np.testing.assert_array_equal(got.coords, expected.coords)
    np.testing.assert_array_equal(got.plddt, expected.plddt)
    assert [x.iptm for x in got.scores] == [x.iptm for x in expected.scores]


def test_importing_foldcp_needs_neither_torch_nor_ray() -> None:
    code = """
import sys, foldcp
foldcp.Complex, foldcp.Chain, foldcp.__version__
heavy = {"torch", "ray", "pandas", "numpy"} & set(sys.modules)
assert not heavy, heavy
foldcp.fold
assert "torch" in sys.modules and "ray" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_resolves() -> None:
    for name in foldcp.__all__:
        assert getattr(foldcp, name) is not None
    assert dir(foldcp) == foldcp.__all__
    assert foldcp.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'fold_all'"):
        _ = foldcp.fold_all  # type: ignore[attr-defined]


def test_fold_equals_the_prediction_of_the_layers_below(
    model: foldcp.Model, dimer: foldcp.Complex
) -> None:
    got = foldcp.fold(model, dimer, seed=3, **SHORT)
    settings = Settings(seed=3, **SHORT)
    assert_equal(got, predict.fold(load("untrained:tiny"), featurize(dimer, seed=3), settings))


def test_fold_takes_a_complex_or_its_features(model: foldcp.Model, dimer: foldcp.Complex) -> None:
    got = foldcp.fold(model, foldcp.featurize(dimer, seed=3), seed=3, **SHORT)
    assert_equal(got, foldcp.fold(model, dimer, seed=3, **SHORT))


def test_fold_steers_with_forced_contacts_and_potentials(
    model: foldcp.Model, dimer: foldcp.Complex
) -> None:
    forced = replace(dimer, contacts=(Contact(("A", 1), ("B", 9), force=True),))
    for potentials in (False, True):
        got = foldcp.fold(model, forced, potentials=potentials, **SHORT)
        settings = Settings(potentials=potentials, **SHORT)
        steering = steering_constraints(forced, potentials=potentials)
        features = featurize(forced)
        expected = predict.fold(model.network, features, settings, constraints=steering)
        assert_equal(got, expected)


def test_features_alone_cannot_steer(model: foldcp.Model, dimer: foldcp.Complex) -> None:
    forced = replace(dimer, contacts=(Contact(("A", 1), ("B", 9), force=True),))
    with pytest.raises(ValueError, match="dimer: has forced pockets or contacts"):
        foldcp.featurize(forced)
    with pytest.raises(ValueError, match="potentials need the complex itself"):
        foldcp.fold(model, foldcp.featurize(dimer), potentials=True)


def test_featurize_takes_msa_settings(tmp_path: Path, dimer: foldcp.Complex) -> None:
    path = tmp_path / "a.a3m"
    rows = ["MKTAYIAKQRQ", "MKTAYIAKQRE", "MKTAYIAKQDQ", "MKTAYIGKQRQ"]
    path.write_text("".join(f">{i}\n{row}\n" for i, row in enumerate(rows)))
    aligned = replace(dimer, chains=(replace(dimer.chains[0], msa=path), dimer.chains[1]))
    assert foldcp.featurize(aligned).num_msa_rows == 4
    assert foldcp.featurize(aligned, max_msa_rows=2).num_msa_rows == 2


@pytest.mark.parametrize("change", [{"samples": 0}, {"steps": 0}, {"recycling": -1}])
def test_fold_refuses_impossible_settings(
    model: foldcp.Model, dimer: foldcp.Complex, change: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        foldcp.fold(model, dimer, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["untrained:huge", "no/such/file.ckpt"])
def test_load_model_refuses_files_that_are_not_checkpoints(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        foldcp.load_model(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "fp8"}, "unknown precision 'fp8', expected fp32, mixed, bf16, bf16-int8"),
        ({"device": "cuda", "kernels": "torch"}, "device 'cuda': PyTorch finds no GPU"),
        ({"device": "cpu", "kernels": "triton"}, "'triton' needs a CUDA device"),
    ],
)
def test_load_model_refuses_what_this_machine_cannot_do(
    arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        foldcp.load_model("untrained:tiny", **arguments)


def test_fold_and_featurize_name_arguments_of_a_wrong_type(
    model: foldcp.Model, dimer: foldcp.Complex
) -> None:
    with pytest.raises(TypeError, match="model: expected what load_model returns, got str"):
        foldcp.fold("untrained:tiny", dimer)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="complex: expected a Complex or Features, got str"):
        foldcp.fold(model, "MKTAYI")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="complex: expected a Complex, got str"):
        foldcp.featurize("MKTAYI")  # type: ignore[arg-type]


def test_write_cif_writes_the_best_sample(
    tmp_path: Path, model: foldcp.Model, dimer: foldcp.Complex
) -> None:
    prediction = foldcp.fold(model, dimer, **SHORT)
    scores = prediction.scores
    for order in (scores, scores[::-1]):
        best = int(order[1].confidence_score > order[0].confidence_score)
        swapped = replace(prediction, scores=order)
        assert swapped.best_sample == best
        swapped.write_cif(tmp_path / "best.cif")
        swapped.write_cif(tmp_path / "other.cif", sample=1 - best)
        x = prediction.coords[best, 0, 0]
        assert f" {x:.3f} " in (tmp_path / "best.cif").read_text()
        assert f" {x:.3f} " not in (tmp_path / "other.cif").read_text()
    prediction.write_cif(tmp_path / "my.best.cif.gz")
    prediction.write_cif(str(tmp_path / "my.best.bcif"))
    text = gzip.decompress((tmp_path / "my.best.cif.gz").read_bytes()).decode()
    assert text.startswith("data_my.best\n") and "_ma_qa_metric_feature_pairwise" in text
    assert list(BinaryCIFFile.read(tmp_path / "my.best.bcif")) == ["my.best"]


@pytest.mark.parametrize("keep", [False, True])
def test_read_run_leaves_out_stale_rows(tmp_path: Path, keep: bool) -> None:
    out = tmp_path / "run"
    info: RunInfo = INFO
    store = Store.open(out, info)
    for key in ("k1", "k2"):
        store.put(key, *result(key, "done"))
    store.put("k3", *result("k3", "failed"))
    store.mark_stale(Present(frozenset({"k1", "k3"})), keep=keep)
    store.close("finished")
    tables = foldcp.read_run(out)
    assert tables.complexes["key"].tolist() == ["k1", "k1", "k3"]
    assert tables.interfaces["key"].unique().tolist() == ["k1"]
    assert tables.complexes.index.tolist() == [0, 1, 2]
    assert len(tables.runs) == 1 and tables.chains.empty and tables.attempts.empty


def test_read_run_refuses_another_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the folder of a run"):
        foldcp.read_run(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": "no.tsv"}, "no.tsv"),
        ({"checkpoint": "untrained:huge"}, "untrained:huge"),
        ({"settings": {"model.sample": 5}}, "model.sample"),
        ({"settings": {"model.samples": "many"}}, "many"),
    ],
)
def test_score_database_refuses_bad_arguments_before_writing(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    fasta = tmp_path / "pairs.fasta"
    fasta.write_text(">pair\nMKTAYIAKQR:GSHMLEDPV\n")
    arguments = {"input": fasta, "checkpoint": "untrained:tiny", **change}
    with pytest.raises(ValueError, match=message):
        foldcp.score_database(out=tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()
