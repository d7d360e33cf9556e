"""Predictions on GPUs against the CPU, on any number of ranks: pytest tests/predict -m gpu"""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from foldcp import predict as predict_module
from foldcp.checkpoint.load import load
from foldcp.config import Precision
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.featurize import featurize
from foldcp.predict import Prediction, Settings, fold
from foldcp.predict_group import fold_group
from tests.predict.test_predict import complex_of_31_tokens, relative
from tests.predict.test_predict_group import small_complexes
from tests.support.distributed import device_of, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

# Few steps: each one amplifies what the one before rounded.
LIMITS: dict[Precision, float] = {"fp32": 1e-4, "mixed": 3e-2, "bf16": 6e-2, "bf16-int8": 6e-2}


def predict(
    cp: ContextParallel, kind: str, precision: Precision, parallel_samples: int = 2
) -> Prediction:
    settings = Settings(
        recycling=1,
        steps=4,
        samples=2,
        parallel_samples=parallel_samples,
        precision=precision,
        keep_pairs=True,
        seed=7,
    )
    model = load("untrained:tiny", cp=cp, precision=precision, device=device_of(cp, kind))
    return fold(model, featurize(complex_of_31_tokens(), seed=7), settings)


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize(
    ("size", "parallel_samples"), [(1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1)]
)
def test_fold_on_a_gpu_equals_that_on_the_cpu(
    size: int, parallel_samples: int, precision: Precision
) -> None:
    """With one sample drawn at a time by all ranks, or each on one rank."""
    expected = predict(ContextParallel(), "cpu", "fp32")
    for got in run(predict, size, "cuda", precision, parallel_samples, kind="cuda"):
        assert relative(got.coords, expected.coords) < LIMITS[precision]
        assert relative(got.plddt, expected.plddt) < LIMITS[precision]
        assert relative(np.stack(got.pae), np.stack(expected.pae)) < LIMITS[precision]
        assert got.peak_bytes > 0


@pytest.mark.parametrize("precision", LIMITS)
def test_a_group_on_a_gpu_is_as_if_each_were_folded_on_the_cpu(precision: Precision) -> None:
    settings = Settings(recycling=1, steps=4, samples=3, parallel_samples=2, keep_pairs=True)
    settings = replace(settings, precision=precision)
    model = load("untrained:tiny", precision=precision, device="cuda")
    exact = load("untrained:tiny")
    group = small_complexes()
    fold_group(model, group, settings)
    predictions = fold_group(model, group, settings)  # replays what the first captured
    for got, features in zip(predictions, group, strict=True):
        expected = fold(exact, features, replace(settings, precision="fp32"))
        assert relative(got.coords, expected.coords) < LIMITS[precision]
        assert relative(got.plddt, expected.plddt) < LIMITS[precision]
        assert relative(np.stack(got.pae), np.stack(expected.pae)) < LIMITS[precision]


def test_scores_beside_the_confidence_module_are_those_computed_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(recycling=0, steps=4, samples=5, keep_pairs=True, kept_pae_pairs=2.0)
    model = load("untrained:tiny", device="cuda")
    features = featurize(complex_of_31_tokens(), seed=7)
    beside = [fold(model, features, settings) for _ in range(3)]
    monkeypatch.setattr(predict_module, "MAX_ATOMS_BESIDE", 0)
    in_turn = fold(model, features, settings)
    for got in beside:
        np.testing.assert_array_equal(got.coords, in_turn.coords)
        np.testing.assert_equal(list(map(asdict, got.scores)), list(map(asdict, in_turn.scores)))
        np.testing.assert_array_equal(got.plddt, in_turn.plddt)
        np.testing.assert_array_equal(np.stack(got.pae), np.stack(in_turn.pae))
        np.testing.assert_array_equal(np.stack(got.pde), np.stack(in_turn.pde))
        assert [block.sample for block in got.pae_blocks] == [
            block.sample for block in in_turn.pae_blocks
        ]
