"""`foldcp export` of a run: its structures as those of Boltz 2 and of AlphaFold DB."""

import csv
import json
import os
from functools import partial
from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from foldcp.complex import Chain, Complex, InvalidComplex, Kind
from foldcp.metrics.chains import ChainSpans
from foldcp.metrics.interface.pae_blocks import PaeBlock, kept_chain_pairs, pae_blocks
from foldcp.pipeline.cli import app
from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.exporting.alphafold_db import confidence_category, model_id
from foldcp.pipeline.exporting.export_run import export_run
from foldcp.pipeline.exporting.staged_folder import STAGING
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.storage.results.boltz_layout import ranking
from foldcp.pipeline.storage.results.invalid_records import invalid_rows
from foldcp.pipeline.storage.results.provenance import Provenance
from foldcp.pipeline.storage.results.result_files import result_files
from foldcp.pipeline.storage.results.result_rows import failed_rows, result_rows
from foldcp.pipeline.storage.staleness import Present
from foldcp.pipeline.storage.store import Store
from foldcp.predict import Prediction
from tests.support.synthetic import synthetic_layout, synthetic_prediction
from tests.support.synthetic_results import INFO, finishing

PROVENANCE = Provenance("untrained:tiny", True, seed=7, num_ranks=2, precision="fp32", max_rows=50)
DIMER = [("protein", ["ALA", "SER", "UNK", "GLY"]), ("protein", ["GLY", "ALA"])]
WITH_LIGAND = [("protein", ["ALA", "GLY"]), ("ligand", ["ATP"]), ("dna", ["DA", "DN"])]
NUM_SAMPLES = 3


class Run:
    """A run's folder: a dimer and a complex with a ligand, both done; one failed, one invalid, one
    stale.
    """

    def __init__(self, out: Path, write: WriteConfig) -> None:
        self.out = out
        self.predictions: dict[str, Prediction] = {}
        with finishing(Store.open(out, INFO)) as store:
            self._put(store, "old", DIMER, write)
            self._put(store, "dimer", DIMER, write)
            self._put(store, "ligand", WITH_LIGAND, write)
            bad = Task(Complex("bad", (Chain("A", "protein", "AS"),)), "bad", 2, 1)
            store.put("bad", failed_rows(bad, "no memory", PROVENANCE))
            record = InvalidComplex("wrong", "no sequence", "", "", "")
            ((key, rows),) = invalid_rows([record], PROVENANCE).items()
            store.put(key, rows)
            store.mark_stale(Present(frozenset({"dimer", "ligand", "bad", key})), keep=True)

    def _put(self, store: Store, name: str, kinds: list, write: WriteConfig) -> None:
        layout = synthetic_layout(kinds)
        chains = [
            _chain(letter, kind, len(residues))
            for letter, (kind, residues) in zip(layout.chain_names, kinds, strict=True)
        ]
        complex = Complex(name, tuple(chains), title=f"the {name}", organism="Human")
        task = Task(complex, name, len(layout.token_chain), 1)
        prediction = synthetic_prediction(layout, NUM_SAMPLES, seed=len(name))
        blocks = partial(_pae_blocks, prediction, write)
        files = result_files(task, layout, prediction, PROVENANCE, write, blocks)
        store.put(name, result_rows(task, layout, prediction, PROVENANCE, write), files)
        self.predictions[name] = prediction

    def best(self, name: str) -> int:
        return ranking(self.predictions[name].scores)[0]


def _pae_blocks(prediction: Prediction, write: WriteConfig, sample: int) -> list[PaeBlock]:
    kept = kept_chain_pairs(write.num_pae_pairs, prediction.scores[sample])
    pae = torch.from_numpy(prediction.pae[sample])
    return pae_blocks(pae, 0, ChainSpans.of(prediction.layout), kept, sample)


def _chain(name: str, kind: Kind, length: int) -> Chain:
    if kind == "ligand":
        return Chain(name, kind, ccd=("ATP",))
    return Chain(name, kind, "A" * length, accession=f"P{name}", gene=f"G{name}")


WITH_PAE = WriteConfig(pae="all")


@pytest.mark.parametrize("structures", ["cif.gz", "cif", "bcif"])
def test_boltz_folder_has_structures_scores_and_matrices(tmp_path: Path, structures: str) -> None:
    run = Run(tmp_path / "run", WriteConfig(pae="all", structures=structures))  # type: ignore[arg-type]
    done = export_run(run.out, "boltz", tmp_path / "boltz", overwrite=False)
    assert len(done.paths) == 2 * NUM_SAMPLES * 4 and all(path.is_file() for path in done.paths)
    assert done.num_without_result == 2 and done.not_written == []
    for name in ("dimer", "ligand"):
        prediction = run.predictions[name]
        folder = tmp_path / "boltz" / "predictions" / name
        for rank, sample in enumerate(ranking(prediction.scores)):
            model = f"{name}_model_{rank}"
            _check_structure(folder / f"{model}.cif", prediction, sample)
            plddt = np.load(folder / f"plddt_{model}.npz")["plddt"]
            np.testing.assert_allclose(plddt, prediction.plddt[sample], atol=6e-6)
            pae = np.load(folder / f"pae_{model}.npz")["pae"]
            np.testing.assert_allclose(pae, prediction.pae[sample], rtol=0, atol=0.1251)
            _check_summary(folder / f"confidence_{model}.json", prediction, sample)


def _check_structure(path: Path, prediction: Prediction, sample: int) -> None:
    model = gemmi.read_structure(str(path))[0]
    atoms = [atom for chain in model for residue in chain for atom in residue]
    assert [chain.name for chain in model] == prediction.layout.chain_names
    assert [atom.name for atom in atoms] == prediction.layout.atom_name
    places = np.array([atom.pos.tolist() for atom in atoms])
    np.testing.assert_allclose(places, prediction.coords[sample], atol=6e-4)


def _check_summary(path: Path, prediction: Prediction, sample: int) -> None:
    summary = json.loads(path.read_text())
    scores = prediction.scores[sample]
    assert summary["ptm"] == pytest.approx(scores.ptm)
    assert summary["confidence_score"] == pytest.approx(scores.confidence_score)
    pairs = summary["pair_chains_iptm"]
    num_chains = len(prediction.layout.chain_names)
    for a in range(num_chains):
        for b in set(range(num_chains)) - {a}:  # the scored chain first
            assert pairs[str(b)][str(a)] == pytest.approx(scores.pair_iptm_boltz[a, b])
    assert "chains_ptm" not in summary


def test_pae_of_some_pairs_of_chains_is_not_written(tmp_path: Path) -> None:
    """The best pair of a dimer is all of it."""
    run = Run(tmp_path / "run", WriteConfig(pae="best:1"))
    done = export_run(run.out, "boltz", tmp_path / "boltz", overwrite=False)
    assert [count for note, count in done.notes.items() if "PAE" in note] == [1]
    written = {path.parent.name for path in done.paths if path.name.startswith("pae_")}
    assert written == {"dimer"}


def test_boltz_folder_without_pae_and_with_the_best_sample_alone(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", WriteConfig(structure_samples="best"))
    done = export_run(run.out, "boltz", tmp_path / "boltz", overwrite=False)
    assert len(done.paths) == 2 * 3 and not list(tmp_path.glob("boltz/predictions/*/pae_*"))
    assert [count for note, count in done.notes.items() if "PAE" in note] == [2]
    assert (tmp_path / "boltz" / "predictions" / "dimer" / "dimer_model_0.cif").is_file()


def test_boltz_folder_copies_the_files_that_a_run_has_in_that_layout(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", WriteConfig(files=("boltz",), structures="none"))
    done = export_run(run.out, "boltz", tmp_path / "boltz", overwrite=False)
    assert not done.notes and not done.not_written
    for path in done.paths:
        original = run.out / path.relative_to(tmp_path / "boltz")
        assert path.read_bytes() == original.read_bytes()
    assert len(done.paths) == 2 * NUM_SAMPLES * 4


def test_complexes_without_structures_are_told(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", WriteConfig(structures="none"))
    for layout in ("boltz", "afdb"):
        command = ["export", str(run.out), "--to", layout, "--out", str(tmp_path / layout)]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 1
        assert "not written: dimer: the run has no structure of it" in done.stderr
        assert "2 complexes have no result" in done.stderr


def test_alphafold_db_has_the_best_sample_of_every_complex_of_proteins(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", WITH_PAE)
    done = export_run(run.out, "afdb", tmp_path / "db", overwrite=False)
    entry = model_id("dimer")
    assert len(entry) == 19
    expected = [
        "AF-metadata-1-of-1.json",
        f"{entry}-confidence_v1.json",
        f"{entry}-model_v1.cif",
        f"{entry}-predicted_aligned_error_v1.json",
        "uniprot_afid_mapping.csv",
        "uniprot_model_metadata.csv",
    ]
    assert sorted(path.name for path in done.paths) == sorted(expected)
    assert done.not_written == [
        ("ligand", "AlphaFold DB's layout is of proteins; chain B (ligand), C (dna)")
    ]
    prediction = run.predictions["dimer"]
    best = run.best("dimer")
    _check_structure(tmp_path / "db" / f"{entry}-model_v1.cif", prediction, best)
    confidence = json.loads((tmp_path / "db" / f"{entry}-confidence_v1.json").read_text())
    plddt = 100 * prediction.plddt[best]
    assert confidence["residueNumber"] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(confidence["confidenceScore"], plddt, atol=6e-3)
    assert [span["sequenceStart"] for span in confidence["chains"]] == [1, 5]
    assert [span["sequenceEnd"] for span in confidence["chains"]] == [4, 6]
    (pae,) = json.loads((tmp_path / "db" / f"{entry}-predicted_aligned_error_v1.json").read_text())
    errors = pae["predicted_aligned_error"]
    np.testing.assert_allclose(errors, prediction.pae[best], rtol=0, atol=0.1251)
    assert pae["max_predicted_aligned_error"] == np.max(errors)
    assert pae["chains"] == confidence["chains"]


def test_alphafold_db_has_metadata_and_manifests(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", WITH_PAE)
    export_run(run.out, "afdb", tmp_path / "db", overwrite=False)
    scores = run.predictions["dimer"].scores[run.best("dimer")]
    (model,) = json.loads((tmp_path / "db" / "AF-metadata-1-of-1.json").read_text())
    assert model["modelEntityId"] == model_id("dimer") and model["complexName"] == "the dimer"
    assert (model["assemblyType"], model["oligomericStateDescription"]) == ("Hetero", "Heterodimer")
    assert model["complexComposition"] == ["PA_1", "PB_1"] and model["gene"] == ["GA", "GB"]
    for name, expected in {
        "ipsae_AB": scores.ipsae_d0res[0, 1],
        "ipsae_BA": scores.ipsae_d0res[1, 0],
        "pDockQ2_BA": scores.interface.pdockq2[1, 0],
        "pDockQ": scores.interface.pdockq[0, 1],
        "LIS_AB": scores.cutoffs[12].lis[0, 1],
        "iptm_af": scores.iptm,
    }.items():
        assert model[f"complexPredictionAccuracy_{name}"] == pytest.approx(expected), name
    with (tmp_path / "db" / "uniprot_afid_mapping.csv").open() as file:
        chains = list(csv.DictReader(file))
    assert [(line["chain_id"], line["uniprot_ac"]) for line in chains] == [("A", "PA"), ("B", "PB")]
    shares = [float(value) for name, value in chains[0].items() if name.startswith("fraction")]
    assert sum(shares) == pytest.approx(1, abs=0.002)
    with (tmp_path / "db" / "uniprot_model_metadata.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert float(line["ipTM"]) == pytest.approx(scores.iptm)


@pytest.mark.parametrize(
    ("plddt", "category"),
    [(90.01, "V"), (90, "H"), (70, "H"), (69.99, "M"), (50, "M"), (30, "L"), (29.99, "D")],
)
def test_confidence_category(plddt: float, category: str) -> None:
    assert confidence_category(plddt) == category


def test_an_export_is_whole_or_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", WITH_PAE)
    broken = next(iter((run.out / "structures" / "ligand").glob("2.cif.gz")))
    content = broken.read_bytes()
    broken.write_bytes(b"no gzip".ljust(len(content)))
    with pytest.raises(ValueError, match=r"2\.cif\.gz: .*gzip"):
        export_run(run.out, "boltz", tmp_path / "boltz", overwrite=False)
    assert not (tmp_path / "boltz").exists()
    broken.write_bytes(content)
    (path, *_) = export_run(run.out, "boltz", tmp_path / "boltz", overwrite=False).paths
    path.write_text("earlier")
    with pytest.raises(ValueError, match="exists already; --overwrite replaces it"):
        export_run(run.out, "boltz", tmp_path / "boltz", overwrite=False)
    assert path.read_text() == "earlier" and not (tmp_path / "boltz" / STAGING).exists()
    export_run(run.out, "boltz", tmp_path / "boltz", overwrite=True)
    assert path.read_text() != "earlier"
    os.mkdir(tmp_path / "boltz" / STAGING)
    with pytest.raises(ValueError, match="another export is writing there, or was killed"):
        export_run(run.out, "boltz", tmp_path / "boltz", overwrite=True)
