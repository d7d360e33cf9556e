"""Predictions from a Boltz YAML with our reader, features and `fold`, against `boltz predict`."""

from __future__ import annotations

import pytest
import torch

from foldcp.distributed.context_parallel import ContextParallel
from tests.parity.support.cases import CASES, Case
from tests.parity.support.oracle import Oracle
from tests.parity.support.replay import replayed
from tests.parity.support.scores import of_scores
from tests.parity.support.table import Measured, check, largest, relative, worst
from tests.support.distributed import run

ANGSTROM = 1e-3
STACK = 1e-4
SCORES = 1e-5
RUNS = [(name, size) for name, case in CASES.items() for size in case.ranks]


def measure(cp: ContextParallel, oracle: Oracle, case: Case) -> list[Measured]:
    ours = replayed(oracle, case, cp, exchange=True)
    record = oracle.record("prediction", case)
    theirs = record["confidence"]
    prediction = ours.prediction
    coords = record["sample"]["coords"][:, : ours.coords.shape[1]]
    assert prediction.pae is not None
    assert prediction.pde is not None
    measured = [
        ("trunk, s", relative(ours.s, record["s"]), STACK),
        ("trunk, z", relative(ours.z, record["z"]), STACK),
        ("coordinates (largest error, Å)", largest(ours.coords, coords), ANGSTROM),
        ("plddt", relative(torch.tensor(prediction.plddt), theirs["plddt"]), STACK),
        (
            "pae",
            relative(torch.stack([torch.tensor(x) for x in prediction.pae]), theirs["pae"]),
            STACK,
        ),
        (
            "pde",
            relative(torch.stack([torch.tensor(x) for x in prediction.pde]), theirs["pde"]),
            STACK,
        ),
    ]
    each = [dict(of_scores(scores, theirs, k)) for k, scores in enumerate(prediction.scores)]
    measured += [(name, max(found[name] for found in each), SCORES) for name in each[0]]
    return [(f"prediction: {name}", error, allowed) for name, error, allowed in measured]


@pytest.mark.parametrize(("name", "size"), RUNS)
def test_predictions_are_those_of_boltz(name: str, size: int, oracle: Oracle) -> None:
    check(worst(run(measure, size, oracle, CASES[name]), name))
