"""From a Boltz YAML to coordinates and scores, by our reader, our features and `fold`: what `boltz predict` gives."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from foldcp import predict
from foldcp.checkpoint import load
from foldcp.predict import Prediction, Settings, fold
from foldcp.rows import Rows
from tests.parity.cases import CASES, Case
from tests.parity.oracle import Oracle, ReplayedDraws
from tests.parity.scores import of_scores
from tests.parity.table import Measured, check, largest, relative, worst
from tests.ranks import run

ANGSTROM, STACK, SCORES = 1e-3, 1e-4, 1e-5
RUNS = [(name, size) for name, case in CASES.items() for size in case.ranks]


def predicted(rows: Rows, oracle: Oracle, case: Case) -> tuple[Prediction, Tensor]:
    """Ours of a case from the numbers that Boltz drew, and our coordinates.

    The scores are those of Boltz's coordinates: a distance that rounding moves over the edge of a bin would change
    them by more than rounding.
    """
    record = oracle.record("prediction", case)
    drawn = [chosen.tolist() for chosen in record["msa_rows"]]
    settings = Settings(
        recycling=case.recycling,
        steps=case.steps,
        samples=case.samples,
        keep_pairs=True,
        msa_subsample=case.subsample,
    )
    sampled, sample = [], predict.sample

    def sample_and_exchange(*args: Any) -> Tensor:
        sampled.append(sample(*args))
        return record["sample"]["coords"]

    with (
        patch.object(predict, "SeededDraws", lambda *_: ReplayedDraws(record["sample"])),
        patch.object(predict, "MSARows", lambda *_: lambda index: drawn[index] if drawn else None),
        patch.object(predict, "sample", sample_and_exchange),
    ):
        prediction = fold(load(oracle.checkpoint(case.size), rows=rows), oracle.features(case.input), settings)
    return prediction, sampled[0]


def measure(rows: Rows, oracle: Oracle, case: Case) -> list[Measured]:
    ours, coords = predicted(rows, oracle, case)
    record = oracle.record("prediction", case)
    theirs, real = record["confidence"], slice(ours.coords.shape[1])
    assert ours.pae is not None
    assert ours.pde is not None
    measured = [
        ("coordinates (largest error, Å)", largest(coords[:, real], record["sample"]["coords"][:, real]), ANGSTROM),
        ("plddt", relative(torch.tensor(ours.plddt), theirs["plddt"]), STACK),
        ("pae", max(relative(torch.tensor(x), y) for x, y in zip(ours.pae, theirs["pae"], strict=True)), STACK),
        ("pde", max(relative(torch.tensor(x), y) for x, y in zip(ours.pde, theirs["pde"], strict=True)), STACK),
    ]
    each = [dict(of_scores(scores, theirs, k)) for k, scores in enumerate(ours.scores)]
    measured += [(name, max(found[name] for found in each), SCORES) for name in each[0]]
    return [(f"prediction: {name}", error, allowed) for name, error, allowed in measured]


@pytest.mark.parametrize(("name", "size"), RUNS)
def test_predictions_are_those_of_boltz(name: str, size: int, oracle: Oracle) -> None:
    check(worst(run(measure, size, oracle, CASES[name]), name))
