"""Complexes that are sampled together are each as if folded alone."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from foldcp.checkpoint.load import load
from foldcp.complex import Chain, Complex
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.features.featurize import featurize
from foldcp.predict import Settings, fold
from foldcp.predict_group import fold_group
from tests.predict.test_predict import assert_same_scores, complex_of_31_tokens, relative

SETTINGS = Settings(
    recycling=1, steps=4, samples=3, parallel_samples=2, keep_pairs=True, kept_pae_pairs=1.0, seed=7
)


def small_complexes() -> list[Features]:
    """Of 31, 5 and 24 tokens, one with a ligand: the middle one's atoms fit into a window."""
    peptide = Complex("peptide", (Chain("A", "protein", "GSAGS"),))
    chains = (
        Chain("A", "protein", "MKTAYIAKQRQWWFF"),
        Chain("B", "rna", "GAUUACAGU"),
    )
    complexes = (complex_of_31_tokens(), peptide, Complex("pair", chains))
    return [featurize(complex, seed=7) for complex in complexes]


def test_a_group_is_as_if_each_were_folded_alone() -> None:
    model = load("untrained:tiny", cp=ContextParallel())
    complexes = small_complexes()
    for got, features in zip(fold_group(model, complexes, SETTINGS), complexes, strict=True):
        alone = fold(model, features, SETTINGS)
        assert relative(got.coords, alone.coords) < 1e-5
        assert relative(got.plddt, alone.plddt) < 1e-5
        assert relative(np.stack(got.pae), np.stack(alone.pae)) < 1e-5
        assert relative(np.stack(got.pde), np.stack(alone.pde)) < 1e-5
        for own, other in zip(got.scores, alone.scores, strict=True):
            assert_same_scores(asdict(own), asdict(other), 1e-4)
        assert set(got.seconds) == set(alone.seconds)


def test_a_group_of_one_is_a_fold() -> None:
    model = load("untrained:tiny", cp=ContextParallel())
    features = small_complexes()[1]
    (got,) = fold_group(model, [features], SETTINGS)
    assert np.array_equal(got.coords, fold(model, features, SETTINGS).coords)


def test_what_cannot_be_grouped_is_refused() -> None:
    model = load("untrained:tiny", cp=ContextParallel())
    with pytest.raises(ValueError, match="no complex"):
        fold_group(model, [], SETTINGS)
    with pytest.raises(ValueError, match="potentials is folded alone"):
        fold_group(model, small_complexes()[:1], replace(SETTINGS, potentials=True))
