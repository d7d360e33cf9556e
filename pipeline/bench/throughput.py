"""Complexes per hour on one GPU: one after the other, and in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from foldcp.model.boltz2 import Boltz2
from foldcp.pipeline.bench.context import peak_bytes, reset_peak_bytes, timed
from foldcp.pipeline.bench.synthetic_features import synthetic_features
from foldcp.predict import Prediction, Settings, fold
from foldcp.predict_group import fold_group


@dataclass(frozen=True, slots=True)
class BatchTime:
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
) -> list[BatchTime]:
    """Synthetic complexes of 90 to 100% of `num_tokens`, with alignments of `rows` rows, alone and
    in batches of each size; each warmed up, which captures the CUDA graphs of this size.

    Raises torch.OutOfMemoryError where a batch does not fit.
    """
    most = max(batches)
    lengths = [num_tokens - index * num_tokens // (10 * most) for index in range(most)]
    complexes = [synthetic_features(max(2, length), rows) for length in lengths]

    def fold_each() -> list[Prediction]:
        return [fold(model, each, settings) for each in complexes]

    device = next(model.parameters()).device
    alone = _measured(fold_each, device)
    found = [_batch_time(num_tokens, 1, alone, alone)]
    for batch in batches:
        together = _measured(partial(fold_group, model, complexes[:batch], settings), device)
        found.append(_batch_time(num_tokens, batch, together, alone))
    return found


@dataclass(frozen=True, slots=True)
class _Measured:
    """Predictions, the seconds of all together, and the peak memory."""

    predictions: Sequence[Prediction]
    seconds: float
    peak_bytes: int


def _measured(run: Callable[[], Sequence[Prediction]], device: torch.device) -> _Measured:
    """The second of two runs."""
    run()
    reset_peak_bytes(device)
    predictions: list[Prediction] = []
    seconds = timed(lambda: predictions.extend(run()), device)
    return _Measured(predictions, seconds, peak_bytes(device))


def _batch_time(num_tokens: int, batch: int, measured: _Measured, alone: _Measured) -> BatchTime:
    predictions = measured.predictions
    return BatchTime(
        num_tokens=num_tokens,
        batch=batch,
        seconds=measured.seconds / len(predictions),
        stages={
            name: float(np.mean([each.seconds[name] for each in predictions]))
            for name in predictions[0].seconds
        },
        peak_bytes=measured.peak_bytes,
        moved=max(
            float(np.linalg.norm(got.coords - own.coords) / np.linalg.norm(own.coords))
            for got, own in zip(predictions, alone.predictions, strict=False)
        ),
    )
