"""The whole prediction, end to end, on any number of ranks and for any seed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest

from foldcp.checkpoint.load import load
from foldcp.complex import Chain, Complex
from foldcp.distributed import sample_parallel
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.featurize import featurize
from foldcp.metrics.interface.pae_blocks import PAE_STEP, kept_chain_pairs
from foldcp.metrics.scorer import SampleScorer
from foldcp.model.diffusion import sampler
from foldcp.predict import Prediction, Settings, fold
from tests.support.distributed import run
from tests.support.metrics_reference import assert_close

ALIGNMENT = ">q\nMKTAYIAKQRQ\n>h\nMKT--IAKQRQ\n>i\n---AYIgAKNRQ\n"
SETTINGS = Settings(
    recycling=1,
    steps=4,
    samples=2,
    parallel_samples=2,
    keep_pairs=True,
    kept_pae_pairs=1.0,
    seed=7,
)


def complex_of_31_tokens(msa: Path | None = None) -> Complex:
    """A heterotrimer of a protein in two copies and DNA; 31 tokens divide by neither 2, 3 nor 5.
    The first copy has the alignment, if any.
    """
    return Complex(
        "trimer",
        (
            Chain("A", "protein", "MKTAYIAKQRQ", msa=msa),
            Chain("B", "protein", "MKTAYIAKQRQ"),
            Chain("D", "dna", "GATTACAGT"),
        ),
    )


def predict(cp: ContextParallel, settings: Settings) -> Prediction:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.a3m")
        path.write_text(ALIGNMENT)
        features = featurize(complex_of_31_tokens(path), seed=settings.seed)
    return fold(load("untrained:tiny", cp=cp), features, settings)


@cache
def on_one_rank() -> Prediction:
    return predict(ContextParallel(), SETTINGS)


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def assert_same_scores(own: dict[str, Any], other: dict[str, Any], rtol: float = 1e-5) -> None:
    """A surface is a number of points on spheres, of which a rounded coordinate may move one."""
    residues = [scores["interface"].pop("interface_residues") for scores in (own, other)]
    areas = [scores["interface"].pop("buried_area") for scores in (own, other)]
    assert residues[0] == residues[1]
    np.testing.assert_allclose(*areas, rtol=1e-3, atol=1)
    assert_close(own, other, rtol, 1e-2 * rtol)


def assert_blocks_hold_the_best_pair(ranks: Sequence[Prediction]) -> None:
    """The blocks of all ranks: each value of the best pair once, to the nearest 0.25 Å."""
    for sample, scores in enumerate(ranks[0].scores):
        steps = np.full((31, 31), -1)
        for rank in ranks:
            for block in rank.pae_blocks:
                if block.sample == sample:
                    rows = slice(block.first_row, block.first_row + len(block.steps))
                    columns = slice(block.first_column, block.first_column + block.steps.shape[1])
                    assert (steps[rows, columns] == -1).all()
                    steps[rows, columns] = block.steps
        kept = kept_chain_pairs(1.0, scores)
        assert kept.sum() == 4
        expected = kept[np.ix_(ranks[0].layout.token_chain, ranks[0].layout.token_chain)]
        np.testing.assert_array_equal(steps >= 0, expected)
        errors = (steps * PAE_STEP - ranks[0].pae[sample])[expected]
        assert np.abs(errors).max() < PAE_STEP / 2 + 1e-5


@pytest.mark.parametrize("rows", [1, 2 * 31, 3 * 31 + 7])
def test_fold_does_not_depend_on_how_many_noise_levels_are_conditioned_at_once(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = on_one_rank()
    monkeypatch.setattr(sampler, "MAX_CONDITIONED_ROWS", rows)  # 1, 2 and 3 of 4 levels
    assert relative(predict(ContextParallel(), SETTINGS).coords, expected.coords) < 1e-5


@pytest.mark.parametrize("size", [2, 3, 5])
def test_fold_does_not_depend_on_the_number_of_ranks(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a large complex, whose samples are each on all ranks."""
    monkeypatch.setattr(sample_parallel, "MAX_TOKENS", 0)  # of the ranks, too, which are forks
    expected = on_one_rank()
    predictions = run(predict, size, SETTINGS)
    assert_blocks_hold_the_best_pair(predictions)
    with_first_sample = [any(not block.sample for block in got.pae_blocks) for got in predictions]
    assert sum(with_first_sample) > 1, "a sample is on several ranks"
    for got in predictions:
        assert relative(got.coords, expected.coords) < 1e-5
        assert relative(got.plddt, expected.plddt) < 1e-5
        assert relative(np.stack(got.pae), np.stack(expected.pae)) < 1e-5
        assert relative(np.stack(got.pde), np.stack(expected.pde)) < 1e-5
        coverage = [counts.tolist() for counts in got.layout.chain_coverage]
        assert coverage == [[2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3], [], []]
        for own, other in zip(got.scores, expected.scores, strict=True):
            assert_same_scores(asdict(own), asdict(other))


def test_fold_returns_the_documented_shapes_and_ranges() -> None:
    got = on_one_rank()
    assert got.coords.shape == (
        2,
        len(featurize(complex_of_31_tokens()).layout.atom_token),
        3,
    )
    assert got.plddt.shape == (2, 31)
    assert_blocks_hold_the_best_pair([got])
    assert got.pae[0].shape == got.pde[1].shape == (31, 31)
    assert np.isfinite(got.coords).all() and (got.plddt > 0).all() and (got.plddt < 1).all()
    assert set(got.seconds) == {"trunk", "sampling", "confidence"}


def test_random_weights_show_scores_that_are_not_zero() -> None:
    """PAE on both sides of ipSAE's cutoff, as people try things out with `untrained:tiny`."""
    got = on_one_rank()
    assert got.pae[0].min() < 10 < got.pae[0].max()
    assert np.nanmax(got.scores[0].ipsae_d0res) > 0


def test_fold_does_not_depend_on_parallel_samples() -> None:
    one_by_one = predict(
        ContextParallel(), Settings(recycling=1, steps=4, samples=2, parallel_samples=1, seed=7)
    )
    assert relative(one_by_one.coords, on_one_rank().coords) < 1e-5


def test_arrays_of_pairs_are_those_of_one_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: WeakSet[SampleScorer] = WeakSet()
    at_once = []
    allocate = SampleScorer._allocate

    def note(self: SampleScorer, *args: Any) -> None:
        alive.add(self)
        at_once.append(len(alive))
        allocate(self, *args)

    monkeypatch.setattr(SampleScorer, "_allocate", note)
    settings = Settings(recycling=0, steps=2, samples=4, kept_pae_pairs=1.0, keep_pairs=True)
    predict(ContextParallel(), settings)
    assert at_once == [1, 1, 1, 1]


def test_fold_gives_different_samples_for_different_seeds() -> None:
    got = on_one_rank()
    other = predict(ContextParallel(), Settings(recycling=1, steps=4, samples=1, seed=8))
    assert relative(got.coords[0], got.coords[1]) > 0.1
    assert relative(other.coords[0], got.coords[0]) > 0.1


@pytest.mark.parametrize(
    "change", [{"recycling": -1}, {"steps": 0}, {"samples": 0}, {"parallel_samples": 0}]
)
def test_settings_refuse_numbers_that_are_too_small(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        Settings(**change)  # type: ignore[arg-type]
