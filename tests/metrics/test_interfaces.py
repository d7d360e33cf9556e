"""The parts of the interface scores: spans, distance scales, frames, contacts, ipSAE of a row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from foldcp.metrics import interfaces
from foldcp.metrics.interfaces import (
    ChainSpans,
    contact_counts,
    ipsae_d0,
    ipsae_d0_by_row,
    ipsae_floor,
    ipsae_rows,
    max_by_chain,
    sum_by_chain,
    tm_d0,
    tm_of_bins,
    valid_frames,
)
from tests.support.metrics_reference import (
    coords_of,
    features_of,
    frame_mask,
    made_up_case,
    noise,
)

KINDS = [("protein", 5), ("dna", 1), ("ligand", 7), ("protein", 3)]
SPANS = ChainSpans.of(made_up_case(KINDS).layout)


def test_spans_cut_by_chain() -> None:
    assert SPANS.starts == (0, 5, 6, 13, 16) and SPANS.num_tokens == 16 and SPANS.num_chains == 4
    x = torch.from_numpy(noise(1, 3, 16))
    for chain, columns in enumerate((slice(0, 5), slice(5, 6), slice(6, 13), slice(13, 16))):
        torch.testing.assert_close(SPANS.sum(x)[:, chain], x[:, columns].sum(1))
        torch.testing.assert_close(SPANS.amin(x)[:, chain], x[:, columns].amin(1))
    assert list(SPANS.rows(4, 5)) == [
        (0, slice(0, 1)),
        (1, slice(1, 2)),
        (2, slice(2, 5)),
    ]
    assert list(SPANS.rows(14, 9)) == [(3, slice(0, 2))]
    assert list(SPANS.rows(16, 4)) == []
    np.testing.assert_array_equal(SPANS.pair_lengths[0], [5, 6, 12, 8])


def test_reductions_over_rows_leave_absent_chains_neutral() -> None:
    x = torch.from_numpy(noise(2, 6, 4))  # rows 9 .. 14: four of chain 2, two of chain 3
    best = max_by_chain(x, SPANS, 9)
    total = sum_by_chain(x.float(), SPANS, 9)
    assert torch.isinf(best[:2]).all() and not total[:2].any() and total.dtype == torch.float64
    torch.testing.assert_close(best[2:], torch.stack([x[:4].amax(0), x[4:].amax(0)]))
    torch.testing.assert_close(
        total[2:], torch.stack([x[:4].sum(0), x[4:].sum(0)]), rtol=1e-6, atol=0
    )


def test_distance_scales() -> None:
    """The published curve, its clip at 19, and ipSAE's floors: at 27 residues the two versions
    differ.
    """
    np.testing.assert_allclose(tm_d0(np.array([3, 19, 79])), [0.168377, 0.168377, 3.16], rtol=1e-5)
    np.testing.assert_allclose(tm_of_bins(79)[8], 1 / (1 + (4.25 / 3.16) ** 2), rtol=1e-6)
    floor = ipsae_floor(SPANS)
    np.testing.assert_array_equal(floor, [[1, 2, 1, 1], [2, 2, 2, 2], [1, 2, 1, 1], [1, 2, 1, 1]])
    sizes = np.array([[26, 27, 28, 79], [27, 28, 43, 79], [0, 27, 27, 28], [28, 79, 44, 27]])
    want = [
        [1, 2, 1.115655, 3.16],
        [2, 2, 2, 3.16],
        [1, 2, 1, 1.115655],
        [1.115655, 3.16, 2.009673, 1],
    ]
    np.testing.assert_allclose(ipsae_d0(sizes, floor), want, rtol=1e-6)
    counts = torch.tensor([[0.0, 26, 27, 43, 79]])
    low, high = (ipsae_d0_by_row(counts, torch.full_like(counts, d0))[0] for d0 in (1.0, 2.0))
    np.testing.assert_allclose(low, [1, 1, 1.038891, 1.96537, 3.16], rtol=1e-6)
    np.testing.assert_allclose(high, [2, 2, 2, 2, 3.16], rtol=1e-6)


def _frames(case: object) -> torch.Tensor:
    return valid_frames(features_of(case, 130), coords_of(case), ChainSpans.of(case.layout))


def test_frames_equal_the_slow_ones() -> None:
    case = made_up_case()
    valid = _frames(case)
    want = frame_mask(case)
    np.testing.assert_array_equal(valid[: len(want)], want)
    assert (
        not valid[len(want) :].any() and want[63:69].any() and not want[47:49].any() and not want[5]
    )
    features = features_of(case, 130)
    features.token_mask[7] = 0
    assert valid[7] and not valid_frames(features, coords_of(case), ChainSpans.of(case.layout))[7]


def test_a_ligand_frame_follows_the_predicted_neighbours() -> None:
    """On a line no atom has a frame; one atom beside it gives frames to those it is near to."""
    case = made_up_case([("protein", 3), ("ligand", 5)])
    line = case.coords.copy()
    line[-5:] = np.outer([0, 1.5, 3.2, 5.0, 7.0], [1, 0, 0])
    assert not _frames(replace(case, coords=line))[3:].any()
    line[-1] = (3.3, 1.4, 0)
    bent = replace(case, coords=line)
    np.testing.assert_array_equal(_frames(bent)[3:8], [False, False, True, True, True])
    np.testing.assert_array_equal(frame_mask(bent)[3:], [False, False, True, True, True])


def test_a_ligand_frame_has_its_angle_at_its_atom() -> None:
    """A narrow triangle: 19 degrees at its first corner, 80 at the others."""
    case = made_up_case([("protein", 3), ("ligand", 3)])
    case.coords[-3:] = [[0, 0, 0], [3, 0.5, 0], [3, -0.5, 0]]
    np.testing.assert_array_equal(_frames(case)[3:6], [False, True, True])


@pytest.mark.parametrize(
    ("degrees", "valid"), [(24.9, False), (25.1, True), (154.9, True), (155.1, False)]
)
def test_frames_need_an_angle_and_arms(degrees: float, valid: bool) -> None:
    case = made_up_case([("protein", 2)])
    angle = np.deg2rad(degrees)
    case.coords[:3] = [
        [1.4, 0, 0],
        [0, 0, 0],
        [1.5 * np.cos(angle), 1.5 * np.sin(angle), 0],
    ]
    assert _frames(case)[0] == valid
    for short, long in ((0, 2), (2, 0)):
        case.coords[short] *= 0.011 / np.linalg.norm(case.coords[short])
        assert _frames(case)[0] == valid
        case.coords[short] *= 0.009 / 0.011
        assert not _frames(case)[0]
        case.coords[[short, long]] *= 100


@pytest.mark.parametrize("pairs", [1, 50, 1 << 22])
def test_steps_change_nothing(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    monkeypatch.setattr(interfaces, "_STEP_PAIRS", pairs)
    points = torch.from_numpy(14 * noise(3, 16, 3)).float() + 3000
    counts = contact_counts(points, SPANS, 4, 9)
    near = (points[4:13].double()[:, None] - points.double()).norm(dim=-1) < 8
    assert 0.2 < near.double().mean() < 0.8
    torch.testing.assert_close(counts, SPANS.sum(near.float()))

    pae = torch.from_numpy(1 + 18 * noise(4, 16, 16)).float()[4:13]
    chain = SPANS.token_chain(pae.device)[4:13]
    floor, d0chn, d0dom = (
        torch.from_numpy(x).float() for x in (ipsae_floor(SPANS), *(1 + 3 * noise(5, 2, 4, 4)))
    )
    got = ipsae_rows(pae, SPANS, chain, d0chn, d0dom, floor)
    for row, a in enumerate(chain.tolist()):
        for b in range(4):
            error = pae[row, SPANS.starts[b] : SPANS.starts[b + 1]]
            error = error[error < 10]
            for k, d0 in enumerate((floor[a, b], d0chn[a, b], d0dom[a, b])):
                want = (1 / (1 + (error / d0) ** 2)).mean() if len(error) else torch.tensor(0.0)
                torch.testing.assert_close(got[row, b, k], want)


def test_a_cutoff_itself_is_outside() -> None:
    spans = ChainSpans((0, 1, 3), ("protein", "protein"))
    points = torch.tensor([[0.0, 0, 0], [8.0, 0, 0], [0, 7.9999, 0]])
    np.testing.assert_array_equal(contact_counts(points, spans, 0, 3), [[1, 1], [0, 1], [1, 1]])
    one = torch.ones(2, 2)
    scores = ipsae_rows(torch.tensor([[10.0, 10.0, 1.0]]), spans, torch.tensor([0]), one, one, one)
    np.testing.assert_array_equal(scores[0, :, 1], [0, 0.5])


def test_tokens_stand_chain_by_chain() -> None:
    layout = made_up_case(KINDS).layout
    with pytest.raises(AssertionError, match="chain by chain"):
        ChainSpans.of(replace(layout, token_chain=layout.token_chain[::-1]))
    with pytest.raises(AssertionError, match="has tokens"):
        ChainSpans.of(replace(layout, chain_kinds=[*layout.chain_kinds, "protein"]))
