"""Complexes per hour, alone and in batches."""

from __future__ import annotations

from foldcp.checkpoint.load import load
from foldcp.pipeline.bench.throughput import measure_throughput
from foldcp.predict import Settings


def test_throughput_of_each_batch_beside_that_alone() -> None:
    settings = Settings(recycling=0, steps=2)
    alone, *together = measure_throughput(load("untrained:tiny"), 20, [1, 3], 4, settings)
    assert (alone.batch, alone.moved) == (1, 0.0)
    assert [found.batch for found in together] == [1, 3]
    for found in together:
        assert found.moved < 1e-5
        assert found.per_hour == 3600 / found.seconds
        assert set(found.stages) == {"trunk", "sampling", "confidence"}
