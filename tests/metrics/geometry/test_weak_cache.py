"""What is kept of an object, and for how long."""

from __future__ import annotations

import gc
import weakref

import numpy as np

from foldcp.features.layout import Layout
from foldcp.metrics.geometry.weak_cache import weak_cache
from tests.support.metrics_reference import synthetic_layout


def test_a_result_is_computed_once_for_an_object_and_dies_with_it() -> None:
    asked = []

    @weak_cache
    def lengths(layout: Layout) -> np.ndarray:
        asked.append(len(layout.token_chain))
        return np.bincount(layout.token_chain)

    one, other = (synthetic_layout([("protein", 3), ("ligand", size)]) for size in (2, 4))
    kept = lengths(one)
    assert lengths(one) is kept
    assert lengths(other).tolist() == [3, 4]
    assert asked == [5, 7]
    dies = weakref.ref(kept)
    del one, kept
    gc.collect()
    assert dies() is None
    assert lengths(other).tolist() == [3, 4] and len(asked) == 2
