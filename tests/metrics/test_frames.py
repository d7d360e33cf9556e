"""Valid frames: of polymers and ligands, against the reference and at the limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from foldcp.metrics.chains import ChainSpans
from foldcp.metrics.frames import valid_frames
from tests.support.metrics_reference import (
    Case,
    coords_of,
    features_of,
    frame_mask,
    synthetic_case,
)


def _valid(case: Case) -> torch.Tensor:
    return valid_frames(features_of(case, 130), coords_of(case), ChainSpans.of(case.layout))


def test_valid_frames_equals_the_reference() -> None:
    case = synthetic_case()
    valid = _valid(case)
    expected = frame_mask(case)
    np.testing.assert_array_equal(valid[: len(expected)], expected)
    assert (
        not valid[len(expected) :].any()
        and expected[63:69].any()
        and not expected[47:49].any()
        and not expected[5]
    )
    features = features_of(case, 130)
    features.token_mask[7] = 0
    assert valid[7] and not valid_frames(features, coords_of(case), ChainSpans.of(case.layout))[7]


def test_valid_frames_of_ligands_follow_the_predicted_neighbours() -> None:
    """On a line no atom has a frame; one atom beside it gives frames to its neighbours."""
    case = synthetic_case([("protein", 3), ("ligand", 5)])
    line = case.coords.copy()
    line[-5:] = np.outer([0, 1.5, 3.2, 5.0, 7.0], [1, 0, 0])
    assert not _valid(replace(case, coords=line))[3:].any()
    line[-1] = (3.3, 1.4, 0)
    bent = replace(case, coords=line)
    np.testing.assert_array_equal(_valid(bent)[3:8], [False, False, True, True, True])
    np.testing.assert_array_equal(frame_mask(bent)[3:], [False, False, True, True, True])


def test_valid_frames_of_ligands_have_their_angle_at_the_atom() -> None:
    """A narrow triangle: 19 degrees at its first corner, 80 at the others."""
    case = synthetic_case([("protein", 3), ("ligand", 3)])
    case.coords[-3:] = [[0, 0, 0], [3, 0.5, 0], [3, -0.5, 0]]
    np.testing.assert_array_equal(_valid(case)[3:6], [False, True, True])


@pytest.mark.parametrize(
    ("degrees", "valid"), [(24.9, False), (25.1, True), (154.9, True), (155.1, False)]
)
def test_valid_frames_need_an_angle_and_arms(degrees: float, valid: bool) -> None:
    case = synthetic_case([("protein", 2)])
    angle = np.deg2rad(degrees)
    case.coords[:3] = [
        [1.4, 0, 0],
        [0, 0, 0],
        [1.5 * np.cos(angle), 1.5 * np.sin(angle), 0],
    ]
    assert _valid(case)[0] == valid
    for short, long in ((0, 2), (2, 0)):
        case.coords[short] *= 0.011 / np.linalg.norm(case.coords[short])
        assert _valid(case)[0] == valid
        case.coords[short] *= 0.009 / 0.011
        assert not _valid(case)[0]
        case.coords[[short, long]] *= 100
