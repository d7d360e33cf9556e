"""Data parallelism over samples: folds whose ranks have samples of their own are those of one rank,
and of those whose ranks share samples.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest

from foldcp.checkpoint.load import load
from foldcp.config import BOLTZ2
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.distributed.sample_parallel import MAX_TOKENS, sample_sharding, samples_of_rank
from foldcp.features.featurize import featurize
from foldcp.model.boltz2 import Boltz2
from foldcp.predict import Prediction, fold
from tests.predict.test_predict import (
    SETTINGS,
    assert_blocks_hold_the_best_pair,
    assert_same_scores,
    complex_of_31_tokens,
    relative,
)
from tests.support.distributed import run

Steps = list[tuple[str, int, int]]
STAGES = ("sampling", "confidence")


def test_small_complexes_have_their_samples_each_on_one_rank() -> None:
    assert sample_sharding(MAX_TOKENS, 5, 5, 2) == (1, 3)
    assert sample_sharding(MAX_TOKENS, 5, 2, 4) == (1, 2)
    assert sample_sharding(31, 2, 2, 8) == (1, 1)
    assert sample_sharding(MAX_TOKENS + 1, 5, 5, 2) == (2, 5)
    assert sample_sharding(31, 1, 5, 2) == (2, 1)
    assert sample_sharding(31, 5, 1, 2) == (2, 5), "one at a time, as memory is scarce"


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8])
def test_ranks_have_all_samples_in_order_and_the_first_one_most(num_ranks: int) -> None:
    for num_samples in range(1, 12):
        ranks = [samples_of_rank(num_samples, rank, num_ranks) for rank in range(num_ranks)]
        assert [sample for rank in ranks for sample in rank] == list(range(num_samples))
        numbers = [len(rank) for rank in ranks]
        assert max(numbers) == numbers[0] == -(-num_samples // num_ranks)
        assert numbers[0] - min(numbers) <= 1


def test_pairs_of_one_rank_fit_beside_the_weights_in_8_gb() -> None:
    """The trunk's z and that of the scores in fp32, and the biases of the sampler in bf16."""
    of_pair = 2 * 4 * BOLTZ2.token_z + 2 * BOLTZ2.token_transformer_blocks * BOLTZ2.diffusion_heads
    assert of_pair * MAX_TOKENS**2 < 8e9


def predict(cp: ContextParallel, numbers: tuple[int, ...]) -> list[tuple[Prediction, Steps]]:
    """Predictions with so many samples by one network, and the steps that this rank has told."""
    model = load("untrained:tiny", cp=cp)
    features = featurize(complex_of_31_tokens(), seed=7)
    found = []
    for samples in numbers:
        steps: Steps = []

        def progress(stage: str, done: int, total: int, steps: Steps = steps) -> None:
            if stage in STAGES:
                steps.append((stage, done, total))

        found.append((fold(model, features, replace(SETTINGS, samples=samples), progress), steps))
    return found


@cache
def on_one_rank() -> Prediction:
    return predict(ContextParallel(), (5,))[0][0]


def assert_equal_predictions(got: Prediction, other: Prediction) -> None:
    """To the last bit, but for the blocks of PAE."""
    for name in ("coords", "plddt", "pae", "pde"):
        assert np.array_equal(np.stack(getattr(got, name)), np.stack(getattr(other, name)))
    for own, others in zip(got.scores, other.scores, strict=True):
        assert repr(own) == repr(others)


def expected_steps(num_samples: int) -> Steps:
    """Of a rank with so many samples, two drawn at a time; a sample has a block and its scores."""
    totals = {"sampling": -(-num_samples // 2) * SETTINGS.steps, "confidence": num_samples * 2}
    return [(stage, done, n) for stage, n in totals.items() if n for done in range(n + 1)]


@pytest.mark.parametrize(("size", "numbers"), [(2, (5, 3, 1)), (3, (2, 5))])
def test_samples_of_each_rank_are_those_of_one_rank(size: int, numbers: tuple[int, ...]) -> None:
    expected = on_one_rank()
    for samples, *by_rank in zip(numbers, *run(predict, size, numbers), strict=True):
        predictions = [prediction for prediction, _ in by_rank]
        assert_blocks_hold_the_best_pair(predictions)
        for rank, (got, steps) in enumerate(by_rank):
            assert_equal_predictions(got, predictions[0])
            assert relative(got.coords, expected.coords[:samples]) < 1e-5
            assert relative(got.plddt, expected.plddt[:samples]) < 1e-5
            for name in ("pae", "pde"):
                theirs = np.stack(getattr(expected, name)[:samples])
                assert relative(np.stack(getattr(got, name)), theirs) < 1e-5
            for own, other in zip(got.scores, expected.scores, strict=False):
                assert_same_scores(asdict(own), asdict(other))
            own_samples = samples_of_rank(samples, rank, size) if samples > 1 else range(1)
            assert {block.sample for block in got.pae_blocks} == set(own_samples)
            assert steps == expected_steps(len(own_samples))


def ranks_of(model: Boltz2) -> set[int]:
    """The numbers of ranks that its layers know."""
    attributes = [value for layer in model.modules() for value in vars(layer).values()]
    return {value.size for value in attributes if isinstance(value, ContextParallel)}


def networks(cp: ContextParallel) -> None:
    """Assert that the network of one rank has the weights of the other and is no part of it."""
    model = load("untrained:tiny", cp=cp)
    names = [name for name, _ in model.named_modules()]
    alone = model.on_one_rank
    assert model.on_one_rank is alone and alone.budget is model.budget
    assert ranks_of(model) == {2} and ranks_of(alone) == {1}
    assert [name for name, _ in model.named_modules()] == names
    weights = alone.state_dict()
    assert list(weights) == list(model.state_dict())
    for name, weight in model.state_dict().items():
        assert weight.data_ptr() == weights[name].data_ptr()


def test_network_of_one_rank_has_the_weights_of_the_other() -> None:
    run(networks, 2)
