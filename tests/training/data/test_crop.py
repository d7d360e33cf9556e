"""Crops: their size, contiguity and place."""

from __future__ import annotations

import numpy as np
import pytest

from foldcp.training.data.crop import (
    CropLimits,
    CropTokens,
    contiguous_crop,
    interface_crop,
    spatial_crop,
)

LENGTHS = (40, 30, 12)
ATOMS = 8
LIMITS = CropLimits(24, None)
SEEDS = range(20)


def tokens(resolved: float = 1.0) -> CropTokens:
    """Two chains that cross at their middles, and a ligand of one component next to the end of the
    second.
    """
    rng = np.random.default_rng(0)
    first = np.stack([3.8 * (np.arange(40) - 20), np.zeros(40), np.zeros(40)], 1)
    second = np.stack([np.zeros(30), 3.8 * (np.arange(30) - 15), np.full(30, 4.0)], 1)
    ligand = second[-1] + np.stack([np.full(12, 3.0), np.arange(12), np.zeros(12)], 1)
    chain = np.repeat(np.arange(3), LENGTHS)
    return CropTokens(
        chain=chain,
        unit=np.concatenate([np.arange(40), np.arange(30), np.zeros(12, dtype=int)]),
        num_atoms=np.where(chain == 2, 1, ATOMS),
        center=np.concatenate([first, second, ligand]),
        resolved=rng.random(len(chain)) < resolved,
    )


def runs(crop: np.ndarray, of: CropTokens, chain: int) -> list[np.ndarray]:
    """The stretches of a crop in a chain."""
    units = np.unique(of.unit[crop[of.chain[crop] == chain]])
    return np.split(units, np.flatnonzero(np.diff(units) > 1) + 1) if len(units) else []


@pytest.mark.parametrize("limits", [LIMITS, CropLimits(None, 150), CropLimits(24, 100)])
@pytest.mark.parametrize("seed", SEEDS)
def test_crops_keep_their_limits_and_whole_units(limits: CropLimits, seed: int) -> None:
    of = tokens(0.8)
    rng = np.random.default_rng(seed)
    neighborhood = int(rng.integers(0, 12))
    for crop in (
        spatial_crop(of, limits, [0], neighborhood, rng),
        interface_crop(of, limits, (0, 1), neighborhood, rng),
        contiguous_crop(of, limits, [1], rng),
    ):
        assert (np.diff(crop) > 0).all()
        assert len(crop) <= (limits.tokens or len(of.chain))
        assert of.num_atoms[crop].sum() <= (limits.atoms or np.inf)
        assert np.isin(of.chain[crop], 2).sum() in (0, 12)
        assert of.resolved[crop].any()


@pytest.mark.parametrize("seed", SEEDS)
def test_spatial_crop_is_what_is_nearest(seed: int) -> None:
    of = tokens()
    crop = spatial_crop(of, LIMITS, [0], 0, np.random.default_rng(seed))
    polymer = crop[of.chain[crop] < 2]
    others = np.setdiff1d(np.flatnonzero(of.chain < 2), crop)
    query = min(
        (i for i in polymer if of.chain[i] == 0),
        key=lambda i: np.linalg.norm(of.center[polymer] - of.center[i], axis=1).max(),
    )
    distance = np.linalg.norm(of.center - of.center[query], axis=1)
    if 12 not in np.bincount(of.chain[crop], minlength=3)[2:]:
        assert len(crop) >= LIMITS.tokens - 12  # type: ignore[operator]
        assert distance[polymer].max() <= distance[others].min() + 8


@pytest.mark.parametrize("seed", SEEDS)
def test_neighborhood_makes_stretches(seed: int) -> None:
    of = tokens()
    crop = spatial_crop(of, LIMITS, [0], 9, np.random.default_rng(seed))
    for chain in (0, 1):
        for run in runs(crop, of, chain):
            ends = (0, LENGTHS[chain] - 1)
            assert len(run) >= 5 if run[0] == ends[0] or run[-1] == ends[1] else len(run) >= 9


@pytest.mark.parametrize("seed", SEEDS)
def test_contiguous_crop_is_a_stretch_of_each_chain(seed: int) -> None:
    of = tokens()
    crop = contiguous_crop(of, LIMITS, [1], np.random.default_rng(seed))
    assert (of.chain[crop] == 1).any()
    for chain in (0, 1):
        assert len(runs(crop, of, chain)) <= 1


def test_contiguous_crops_differ_in_length_and_place() -> None:
    of = tokens()
    crops = [contiguous_crop(of, LIMITS, [1], np.random.default_rng(seed)) for seed in range(200)]
    lengths = {int((of.chain[crop] == 1).sum()) for crop in crops}
    starts = {int(crop[of.chain[crop] == 1][0]) for crop in crops}
    assert lengths == set(range(1, 25))
    assert starts >= set(range(40, 60))


@pytest.mark.parametrize("seed", SEEDS)
def test_interface_crop_has_both_sides_of_the_interface(seed: int) -> None:
    of = tokens()
    crop = interface_crop(of, LIMITS, (0, 1), 0, np.random.default_rng(seed))
    first = of.center[crop[of.chain[crop] == 0]]
    second = of.center[crop[of.chain[crop] == 1]]
    assert len(first) >= 4 and len(second) >= 4
    assert np.linalg.norm(first[:, None] - second, axis=-1).min() < 5


def test_interface_that_is_further_apart_is_met_with_a_margin() -> None:
    """At 17 Å only the middles are near."""
    of = tokens()
    far = np.where((of.chain == 1)[:, None], of.center + np.array([0, 0, 13.0]), of.center)
    of = CropTokens(of.chain, of.unit, of.num_atoms, far, of.resolved)
    for seed in SEEDS:
        crop = interface_crop(of, CropLimits(1, None), (0, 1), 0, np.random.default_rng(seed))
        assert np.linalg.norm(of.center[crop[0]] - np.array([0, 0, 8.5]), axis=-1) < 16


def test_chain_without_resolved_tokens_is_cropped_elsewhere() -> None:
    of = tokens()
    resolved = of.chain != 1
    of = CropTokens(of.chain, of.unit, of.num_atoms, of.center, resolved)
    rng = np.random.default_rng(0)
    assert of.resolved[spatial_crop(of, LIMITS, [1], 0, rng)].any()
    assert of.resolved[interface_crop(of, LIMITS, (0, 1), 0, rng)].any()
    for seed in SEEDS:
        crop = contiguous_crop(of, LIMITS, [1], np.random.default_rng(seed))
        assert of.resolved[crop].sum() >= 4


def test_crop_without_room_for_one_residue_says_so() -> None:
    with pytest.raises(ValueError, match=r"at most 4 tokens .* has no room"):
        spatial_crop(tokens(), CropLimits(4, None), [0], 8, np.random.default_rng(0))
    nothing = tokens(resolved=0.0)
    with pytest.raises(ValueError, match="no token of the structure has its centre resolved"):
        spatial_crop(nothing, LIMITS, [0], 0, np.random.default_rng(0))
