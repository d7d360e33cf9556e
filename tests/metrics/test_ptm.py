"""The TM-score's distance scale and its table over the PAE bins."""

from __future__ import annotations

import numpy as np

from foldcp.metrics.ptm import tm_d0, tm_of_bins


def test_tm_d0_is_the_published_curve_clipped_at_19() -> None:
    np.testing.assert_allclose(tm_d0(np.array([3, 19, 79])), [0.168377, 0.168377, 3.16], rtol=1e-5)


def test_tm_of_bins_is_the_kernel_at_the_centres() -> None:
    np.testing.assert_allclose(tm_of_bins(79)[8], 1 / (1 + (4.25 / 3.16) ** 2), rtol=1e-6)
