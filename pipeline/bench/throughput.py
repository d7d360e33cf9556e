"""Complexes per hour on one GPU: one after the other, and in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from foldcp.model.boltz2 import Boltz2
from foldcp.pipeline.bench.measure import synthetic_features
from foldcp.predict import Prediction, Settings, fold
from foldcp.predict_group import fold_group


@dataclass(frozen=True, slots=True)
class Throughput:
    """Complexes of one size, folded in batches of `batch`, 1 for one after the other.

    `moved` is the distance of their coordinates from those of folding each alone, over their norm,
    the largest of all.
    """

    num_tokens: int  # of the largest
    batch: int
    seconds: float  # of each
    stages: dict[str, float]  # seconds of each, the mean
    peak_bytes: int
    moved: float

    @property
    def per_hour(self) -> float:
        """Complexes per hour."""
        return 3600 / self.seconds


def measure_throughput(
    model: Boltz2, num_tokens: int, batches: Sequence[int], rows: int, settings: Settings
) -> list[Throughput]:
    """Synthetic complexes of 90 to 100% of `num_tokens`, with alignments of `rows` rows, alone and
    in batches of each size; each warmed up, which captures the CUDA graphs of this size.

    Raises torch.OutOfMemoryError where a batch does not fit.
    """
    most = max(batches)
    lengths = [num_tokens - index * num_tokens // (10 * most) for index in range(most)]
    complexes = [synthetic_features(length, rows) for length in lengths]
    fold(model, complexes[0], settings)
    seconds, alone = _timed(lambda: [fold(model, each, settings) for each in complexes])
    found = [_throughput(num_tokens, 1, seconds, alone, alone)]
    for batch in batches:
        group = complexes[:batch]
        fold_group(model, group, settings)
        seconds, together = _timed(partial(fold_group, model, group, settings))
        found.append(_throughput(num_tokens, batch, seconds, together, alone))
    return found


def _throughput(
    num_tokens: int,
    batch: int,
    seconds: float,
    predictions: Sequence[Prediction],
    alone: Sequence[Prediction],
) -> Throughput:
    names = predictions[0].seconds
    return Throughput(
        num_tokens,
        batch,
        seconds,
        {name: float(np.mean([each.seconds[name] for each in predictions])) for name in names},
        max(each.peak_bytes for each in predictions),
        max(
            float(np.linalg.norm(got.coords - own.coords) / np.linalg.norm(own.coords))
            for got, own in zip(predictions, alone, strict=False)
        ),
    )


def _timed(run: Callable[[], Sequence[Prediction]]) -> tuple[float, Sequence[Prediction]]:
    """Seconds for each complex, and the predictions."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    predictions = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(predictions), predictions
