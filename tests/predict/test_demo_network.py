"""The trained network that comes with foldcp: what precision, ranks and groups do to structures and
scores that mean something, where random weights show rounding alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from jaxtyping import Float

from foldcp.checkpoint.identity import DEMO, checkpoint_identity
from foldcp.checkpoint.load import load
from foldcp.complex import Chain, Complex
from foldcp.config import Precision
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.features.featurize import featurize
from foldcp.pipeline.evaluation.measures.lddt import kept_share
from foldcp.pipeline.fetch import find_weights
from foldcp.predict import Prediction, Settings, fold
from foldcp.predict_group import fold_group
from tests.support.distributed import run

# Proteins that it was trained on: PDB entries 1ejg and 1hf9.
CRAMBIN = "TTCCPSIVARSNFNVCRLPGTPEALCATYTGCIIIPGATCPGDYAN"
DISULFIDES = ((3, 40), (4, 32), (16, 26))
INHIBITOR = "ALKKHHENEISHHAKEIERLQKEIERHKQSIKKLKQSEDDD"
SETTINGS = Settings(recycling=0, steps=20, keep_pairs=True, seed=3)


def crambin() -> Features:
    return featurize(Complex("crambin", (Chain("A", "protein", CRAMBIN),)), seed=3)


def inhibitor() -> Features:
    chains = tuple(Chain(name, "protein", INHIBITOR) for name in "AB")
    return featurize(Complex("inhibitor", chains), seed=3)


def predict(cp: ContextParallel, precision: Precision) -> Prediction:
    model = load(find_weights("demo"), cp=cp, precision=precision, kernels="torch")
    return fold(model, inhibitor(), replace(SETTINGS, precision=precision))


@cache
def exact() -> Prediction:
    """Of one rank in fp32."""
    return predict(ContextParallel(), "fp32")


def atoms(prediction: Prediction, name: str) -> Float[np.ndarray, "T 3"]:
    """The atom of a name of every token; NaN where a residue has none."""
    layout = prediction.layout
    found = np.full((len(layout.token_chain), 3), np.nan)
    chosen = np.array(layout.atom_name) == name
    found[layout.atom_token[chosen]] = prediction.coords[0][chosen]
    return found


def distances(points: Float[np.ndarray, "T 3"]) -> Float[np.ndarray, "T T"]:
    return np.linalg.norm(points[:, None] - points, axis=-1)


def lddt(got: Prediction, expected: Prediction) -> float:
    """lDDT of CA atoms, which Mariani et al. 2013 define, beside another prediction."""
    before = distances(atoms(expected, "CA"))
    near = (before < 15) & (before > 0)
    after = atoms(got, "CA")
    return kept_share(after, after, np.argwhere(near), before[near])


def assert_alike(got: Prediction, expected: Prediction, score: float) -> None:
    assert np.abs(got.plddt - expected.plddt).max() < 3 * score
    assert np.abs(got.pae[0] - expected.pae[0]).mean() < 30 * score  # Å
    for name in ("ptm", "iptm", "confidence_score"):
        ours, theirs = getattr(got.scores[0], name), getattr(expected.scores[0], name)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=score, err_msg=name)


def test_the_weights_are_those_that_warnings_are_about() -> None:
    assert checkpoint_identity(find_weights("demo")) == DEMO


def test_it_knows_the_disulfides_of_crambin() -> None:
    prediction = fold(load(find_weights("demo")), crambin(), SETTINGS)
    between = distances(atoms(prediction, "SG"))
    for first, second in DISULFIDES:
        assert 1.6 < between[first - 1, second - 1] < 2.4
    others = [(a, b) for a in (2, 3, 15) for b in (39, 31, 25) if (a + 1, b + 1) not in DISULFIDES]
    assert min(between[pair] for pair in others) > 3
    steps = np.linalg.norm(np.diff(atoms(prediction, "CA"), axis=0), axis=-1)
    assert np.abs(steps - 3.8).max() < 0.4
    assert prediction.plddt.mean() > 0.9


@pytest.mark.parametrize("precision", ["mixed", "bf16", "bf16-int8"])
def test_precisions_change_structures_and_scores_little(precision: Precision) -> None:
    got = predict(ContextParallel(), precision)
    assert not np.array_equal(got.coords, exact().coords)
    assert lddt(got, exact()) > 0.98
    assert_alike(got, exact(), 0.01)


def test_ranks_change_structures_and_scores_by_rounding() -> None:
    for got in run(predict, 4, "fp32"):
        assert lddt(got, exact()) > 0.999
        assert_alike(got, exact(), 1e-3)


def test_packed_complexes_are_as_if_folded_alone() -> None:
    model = load(find_weights("demo"))
    packed = fold_group(model, [inhibitor(), crambin()], SETTINGS)
    for got, expected in zip(packed, (exact(), fold(model, crambin(), SETTINGS)), strict=True):
        assert lddt(got, expected) > 0.999
        assert_alike(got, expected, 1e-3)
