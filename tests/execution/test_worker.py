"""One worker: results and failures of its folds, and the settings that reach the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foldcp import predict
from foldcp.checkpoint.load import load as load_network
from foldcp.complex import Chain, Complex, Contact
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.msa.chain_msas import MsaSettings
from foldcp.model.diffusion.noise import SeededNoise
from foldcp.pipeline.config import WriteConfig, load
from foldcp.pipeline.execution.results import FoldResult, Ready
from foldcp.pipeline.execution.worker import Worker, fold_settings
from foldcp.pipeline.inputs.tasks import make_task
from foldcp.pipeline.inputs.validation import msa_settings
from foldcp.pipeline.scheduling.cost_model import FoldShape
from foldcp.pipeline.scheduling.types import Failure, WorkerConfig
from foldcp.predict import Prediction
from tests.predict.test_predict import relative
from tests.support.distributed import run
from tests.support.runs import sequence

DIMER = Complex(
    "dimer",
    (Chain("A", "protein", sequence(13, 0)), Chain("B", "protein", sequence(9, 1))),
)
ONE = FoldShape(1, "fp32", 1, 100)
WRITE = WriteConfig()


def make_worker(*overrides: str) -> Worker:
    """A worker that has loaded the network."""
    config = load(
        overrides=[
            "model.steps=2",
            "model.recycling=0",
            "msa.missing=single-sequence",
            *overrides,
        ]
    )
    worker = Worker(WorkerConfig("untrained:tiny", "untrained:tiny", "fp32", config, 1))
    assert worker.join(0, 1, "") == Ready(kernels=f"torch {torch.__version__}")
    return worker


def prediction_of(worker: Worker, complex: Complex) -> Prediction:
    """The prediction of a fold that succeeds."""
    result = worker.fold(complex, ONE, worker.worker_config.config.write)
    assert isinstance(result, FoldResult)
    assert result.prediction is not None
    return result.prediction


def test_fold_many_times_reports_time_and_memory() -> None:
    worker = make_worker()
    result = worker.fold(DIMER, ONE, WRITE)
    assert isinstance(result, FoldResult)
    assert result.prediction is not None
    assert (result.stats.msa_depth, len(result.prediction.layout.token_chain)) == (1, 22)
    assert set(result.stats.seconds) >= {"features", "trunk", "sampling", "confidence"}
    assert 1e8 < result.stats.peak_bytes < 1e10
    first = result.prediction
    second = prediction_of(worker, DIMER)
    np.testing.assert_array_equal(first.coords, second.coords)
    assert not first.pae
    assert len(prediction_of(make_worker("write=pde"), DIMER).pde) == 1


def folded_on_ranks(cp: ContextParallel) -> list[FoldResult | Failure]:
    """A fold of three samples, and one whose last sample, which is the second rank's, is NaN."""
    worker = make_worker("model.samples=3")
    worker.cp = cp
    worker.model = load_network("untrained:tiny", cp=cp)
    shape = replace(ONE, num_ranks=cp.size, parallel_samples=3)
    write = WriteConfig(pae="all")
    result = worker.fold(DIMER, shape, write)

    def noise(seed: int, samples: range, *args: Any) -> SeededNoise:
        made = SeededNoise(seed, samples, *args)
        if 2 in samples:
            made.initial = lambda: torch.full((1, made.num_atoms, 3), torch.nan)
        return made

    predict.SeededNoise = noise  # type: ignore[assignment,misc]  in this process alone
    return [result, worker.fold(DIMER, shape, write)]


def test_ranks_with_samples_of_their_own_have_one_result() -> None:
    (first, failure), (second, other_failure) = run(folded_on_ranks, 2)
    assert failure == other_failure
    assert failure == Failure("invalid", "the network's coordinates are not finite")
    assert len(first.prediction.scores) == 3 and second.prediction is None
    for sample, rank in ((0, first), (1, first), (2, second)):
        (block,) = rank.pae_blocks[sample]
        assert block.steps.shape == (22, 22)
    assert first.pae_blocks[2] == second.pae_blocks[0] == second.pae_blocks[1] == []


def test_a_batch_gives_each_complex_its_own_result() -> None:
    worker = make_worker()
    peptide = Complex("peptide", (Chain("A", "protein", sequence(11, 2)),))
    folded = worker.fold_batch([DIMER, peptide], replace(ONE, batch=2), WRITE)
    assert isinstance(folded, list)
    for result, complex in zip(folded, [DIMER, peptide], strict=True):
        assert isinstance(result, FoldResult)
        assert result.prediction is not None
        alone = prediction_of(worker, complex)
        assert relative(result.prediction.coords, alone.coords) < 1e-5
        assert result.prediction.layout.token_chain.tolist() == alone.layout.token_chain.tolist()
        assert set(result.stats.seconds) >= {"features", "trunk", "sampling", "confidence"}


def test_a_complex_at_fault_leaves_the_others_of_its_batch_alone(tmp_path: Path) -> None:
    worker = make_worker()
    damaged = tmp_path / "a.a3m"
    damaged.write_text(f">q\n{sequence(12, 3)}\n")  # of another chain
    broken = Complex("broken", (replace(DIMER.chains[0], msa=damaged),))
    folded = worker.fold_batch([broken, DIMER], replace(ONE, batch=2), WRITE)
    assert isinstance(folded, list)
    failure, result = folded
    assert isinstance(failure, Failure)
    assert failure.kind == "invalid"
    assert isinstance(result, FoldResult)
    assert result.prediction is not None
    assert relative(result.prediction.coords, prediction_of(worker, DIMER).coords) < 1e-5
    assert worker.fold_batch([broken], ONE, WRITE) == [failure]


def test_a_batch_out_of_memory_fails_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory for it")

    monkeypatch.setattr("foldcp.pipeline.execution.worker.fold_group", exhausted)
    failure = make_worker().fold_batch([DIMER, DIMER], replace(ONE, batch=2), WRITE)
    assert failure == Failure("oom", "rank 0: no memory for it")


def test_fold_refuses_files_that_have_changed_since_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "a.a3m"
    path.write_text(f">q\n{sequence(13, 0)}\n>h\n{sequence(13, 2)}\n")
    worker = make_worker()
    complex = replace(DIMER, chains=(replace(DIMER.chains[0], msa=path), DIMER.chains[1]))
    planned = make_task(complex, worker.worker_config.config, "w").complex
    assert prediction_of(worker, planned).layout.chain_msa_depth.tolist() == [2, 1]
    path.write_text(f">q\n{sequence(13, 0)}\n>h\n{sequence(13, 3)}\n")
    failure = worker.fold(planned, ONE, WRITE)
    assert isinstance(failure, Failure)
    assert failure.kind == "invalid"
    assert f"alignment {path}: its content has changed since the run began" in failure.reason


def test_fold_steers_by_forced_contacts_and_potentials() -> None:
    free = prediction_of(make_worker("model.steps=8"), DIMER)
    forced = replace(DIMER, contacts=(Contact(("A", 1), ("B", 9), 4.0, force=True),))
    for worker, complex in (
        (make_worker("model.steps=8"), forced),
        (make_worker("model.steps=8", "model.potentials=true"), DIMER),
    ):
        steered = prediction_of(worker, complex)
        assert np.abs(steered.coords - free.coords).max() > 0.01


def test_fold_reports_invalid_input(tmp_path: Path) -> None:
    (tmp_path / "a.a3m").write_text(">q\nMKTAYI\n")
    wrong = replace(DIMER, chains=(replace(DIMER.chains[0], msa=tmp_path / "a.a3m"),))
    failure = make_worker().fold(wrong, ONE, WRITE)
    assert isinstance(failure, Failure)
    assert failure.kind == "invalid"
    assert "a.a3m" in failure.reason


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the network raise an error."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("foldcp.pipeline.execution.worker.fold", fail)


def test_fold_reports_out_of_memory_and_raises_other_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = make_worker()
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ):
        fail_with(monkeypatch, error)
        failure = worker.fold(DIMER, ONE, WRITE)
        assert isinstance(failure, Failure)
        assert failure.kind == "oom"
    for error in (RuntimeError("a bug"), AssertionError("another")):
        fail_with(monkeypatch, error)
        with pytest.raises(type(error)):
            worker.fold(DIMER, ONE, WRITE)


def test_fold_settings_and_alignment_settings_follow_the_config() -> None:
    config = load(
        overrides=[
            "model.recycling=7",
            "model.steps=11",
            "model.samples=6",
            "model.seed=5",
            "write=pde",
            "write.pae=best:3",
            "msa.max_rows=50",
            "msa.corrected=true",
            "msa.subsample=8",
        ]
    )
    settings = fold_settings(config, FoldShape(3, "bf16", 2, 40), config.write)
    assert settings.recycling == 7
    assert settings.steps == 11
    assert settings.samples == 6
    assert settings.seed == 5
    assert settings.parallel_samples == 2
    assert settings.precision == "bf16"
    assert settings.msa_subsample == 8
    assert settings.keep_pairs
    assert settings.kept_pae_pairs == 3
    alignments = msa_settings(config, 40)
    assert alignments.max_file_rows == 50
    assert alignments.max_paired == 40
    assert alignments.max_rows == 40
    assert alignments.corrected
    # What Boltz does is what happens without any setting.
    assert msa_settings(load(), 2 * 8192) == MsaSettings()


def test_sampling_precision_is_a_setting() -> None:
    def sampling_dtype(*overrides: str) -> torch.dtype:
        model = make_worker(*overrides).model
        return model.structure_module.score_model.token_transformer.dtype

    assert sampling_dtype() == sampling_dtype("model.sampling=fp32") == torch.float32
    assert sampling_dtype("model.sampling=bf16") == torch.bfloat16
