"""The cost model against all that was measured on H200s."""

from __future__ import annotations

from statistics import median

from tests.scheduling.costs.measured import BLOCKS, block_times, fold_times, peaks


def test_times_are_within_15_percent_of_the_measured_ones_in_the_median() -> None:
    blocks = [abs(found.ratio - 1) for found in block_times()]
    folds = [abs(found.ratio - 1) for found in fold_times()]
    assert len(blocks) == len(BLOCKS)
    assert median(blocks) < 0.06
    assert median(folds) < 0.08
    assert sum(error < 0.2 for error in [*blocks, *folds]) >= len(blocks) + len(folds) - 1


def test_predicted_peak_is_an_upper_bound_of_every_measured_one() -> None:
    for found in peaks():
        assert 1.0 <= found.ratio < 1.35, found
    large = [found for found in peaks() if found.measured > 50]
    assert len(large) == 2
    assert all(found.ratio < 1.15 for found in large)
