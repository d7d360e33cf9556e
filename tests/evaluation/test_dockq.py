"""DockQ and its parts, against values of the DockQ package and against what they must be."""

from __future__ import annotations

import itertools
import json
import os

import numpy as np
import pytest

from foldcp.pipeline.evaluation.matching.alignment import align
from foldcp.pipeline.evaluation.matching.chain_pair import ChainPair
from foldcp.pipeline.evaluation.measures.dockq import Contacts, InterfaceScores, score_interface
from foldcp.pipeline.evaluation.structures.chain import Chain
from tests.evaluation.dockq_cases import CASES, VALUES, make, run_dockq
from tests.evaluation.synthetic import polymer, without

DOCKQ_PYTHON = os.environ.get("FOLDCP_DOCKQ_PYTHON", "")  # an interpreter with the DockQ package
NAMES = {"DockQ": "dockq", "fnat": "fnat", "fnonnat": "fnonnat", "iRMSD": "irmsd", "LRMSD": "lrmsd"}


def pair_of(model: Chain, reference: Chain) -> ChainPair:
    alignment = align(model, reference)
    assert alignment is not None
    return ChainPair(model, reference, alignment)


def _scores(case: str) -> dict[str, InterfaceScores]:
    pairs = [pair_of(a, b) for a, b in zip(*make(case), strict=True)]
    contacts = Contacts()
    found = {}
    for a, b in itertools.combinations(pairs, 2):
        scores = score_interface(a, b, contacts)
        if scores is not None:
            found[a.reference.name + b.reference.name] = scores
    return found


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_dockq_package(case: str) -> None:
    expected = json.loads(VALUES.read_text())[case]
    found = _scores(case)
    assert found.keys() == expected.keys()
    assert found
    for ends, measures in expected.items():
        for measure, value in measures.items():
            assert getattr(found[ends], NAMES[measure]) == pytest.approx(value, abs=1e-4), measure


def test_cases_reach_every_class() -> None:
    values = [v["DockQ"] for case in json.loads(VALUES.read_text()).values() for v in case.values()]
    for low, high in ((0, 0.23), (0.23, 0.49), (0.49, 0.8), (0.8, 1.01)):
        assert any(low <= value < high for value in values)


@pytest.mark.skipif(not DOCKQ_PYTHON, reason="FOLDCP_DOCKQ_PYTHON names no Python with DockQ")
def test_recorded_values_are_those_of_the_installed_package() -> None:
    recorded = json.loads(VALUES.read_text())
    for case, ends in run_dockq(DOCKQ_PYTHON).items():
        for names, measures in ends.items():
            assert measures == pytest.approx(recorded[case][names], abs=1e-6)


def test_chains_that_do_not_touch_in_the_reference_have_no_scores() -> None:
    a = polymer("A", "MKTAYIAK", 1)
    b = polymer("B", "GSHMSDEI", 2, center=(100, 0, 0))
    assert score_interface(pair_of(a, a), pair_of(b, b), Contacts()) is None


def test_dockq_is_nan_without_common_backbone() -> None:
    reference = [polymer("A", "MKTAYIAKQR", 1), polymer("B", "GSHMSDEIVC", 2, center=(7, 0, 0))]
    model = without(reference[0], range(1, 10))
    part = without(reference[0], [0])
    pairs = (pair_of(model, part), pair_of(reference[1], reference[1]))
    scores = score_interface(*pairs, Contacts())
    assert scores is not None
    assert scores.fnat == 0
    assert np.isnan([scores.irmsd, scores.lrmsd, scores.dockq]).all()
