"""Roofline limits against sums by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foldcp.config import BOLTZ2
from foldcp.pipeline.bench.measurements import FoldTime
from foldcp.pipeline.bench.roofline import block_limit, fold_limit
from tests.support.bench import H200, WHOLE


def test_block_limit_by_hand() -> None:
    # At 100,000 tokens the cubes rule: 8 exponentials at 4.2e12/s and 512 operations at 750e12/s.
    cubes = 1e15 * (8 / 4.2e12 + 512 / 750e12)
    assert block_limit(BOLTZ2, 100_000, 1, "bf16", H200) == pytest.approx(cubes, rel=0.02)
    for tokens, milliseconds in ((1024, 5), (2048, 32), (4096, 225)):
        limit = block_limit(BOLTZ2, tokens, 1, "bf16", H200)
        assert limit == pytest.approx(milliseconds / 1e3, rel=0.15)
    assert block_limit(BOLTZ2, 600, 1, "mixed", H200) > block_limit(BOLTZ2, 600, 1, "bf16", H200)
    # In fp32 the matrix products of attention take longer than its exponentials.
    exact = 1e15 * (8 * 128 + 512) / 50e12
    assert block_limit(BOLTZ2, 100_000, 1, "fp32", H200) == pytest.approx(exact, rel=0.02)


def test_fold_limit_by_hand() -> None:
    fold = FoldTime(512, 1, "mixed", {}, {})
    limit = fold_limit(BOLTZ2, WHOLE, fold, H200)
    block = block_limit(BOLTZ2, 512, 1, "mixed", H200)
    assert limit["trunk"] == pytest.approx(4 * 68 * block)
    assert limit["confidence"] == pytest.approx(5 * 8 * block)
    # 1,000 evaluations of 24 layers, width 768: about 0.4 s.
    assert 0.3 < limit["sampling"] < 0.5
    halves = fold_limit(BOLTZ2, WHOLE, replace(fold, num_ranks=2), H200)
    assert halves["trunk"] == pytest.approx(limit["trunk"] / 2)
    for stage in ("sampling", "confidence"):  # of 5 samples one GPU has 3
        assert halves[stage] == pytest.approx(0.6 * limit[stage])
