"""What bf16 costs: the errors of our `mixed` beside those of Boltz's own bf16-mixed, and those of our `bf16`.

Errors are measured to fp32 of the same code, on the same random numbers. Boltz's are those of a GPU, on a CPU: see
reference/precision.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from foldcp import predict
from foldcp.checkpoint import Precision, load
from foldcp.model.boltz2 import Trunk
from foldcp.predict import Settings, fold
from tests.parity.cases import CASES, PRECISION, Case
from tests.parity.oracle import Oracle, ReplayedDraws
from tests.parity.table import Row, check, relative

WORSE = 1.25  # times Boltz's error


def outcome(oracle: Oracle, case: Case, precision: Precision) -> dict[str, Tensor]:
    """s, z, coordinates, pLDDT and PAE in a precision."""
    record, trunks, sample = oracle.record("prediction", case), [], predict.sample
    settings = Settings(
        recycling=case.recycling, steps=case.steps, samples=case.samples, precision=precision, keep_pairs=True
    )

    def remember(model: Any, trunk: Trunk, *args: Any) -> Tensor:
        trunks.append(replace(trunk, z=trunk.z.clone()))  # the last use of z overwrites it
        return sample(model, trunk, *args)

    with (
        patch.object(predict, "SeededDraws", lambda *_: ReplayedDraws(record["sample"])),
        patch.object(predict, "sample", remember),
    ):
        model = load(oracle.checkpoint(case.size), precision=precision)
        prediction = fold(model, oracle.features(case.input), settings)
    (trunk,), pae = trunks, prediction.pae
    assert pae is not None
    return {
        "s": trunk.s.float(), "z": trunk.z.float(), "coords": torch.tensor(prediction.coords),
        "plddt": torch.tensor(prediction.plddt), "pae": torch.stack([torch.tensor(x) for x in pae]),
    }  # fmt: skip


def of_boltz(record: dict[str, Any], num_atoms: int) -> dict[str, Tensor]:
    confidence = record["confidence"]
    coords = record["sample"]["coords"][:, :num_atoms]
    return {
        "s": record["s"], "z": record["z"], "coords": coords, "plddt": confidence["plddt"], "pae": confidence["pae"],
    }  # fmt: skip


@pytest.mark.parametrize("name", PRECISION)
def test_bf16_costs_no_more_than_in_boltz(name: str, oracle: Oracle) -> None:
    case = CASES[name]
    ours: dict[Precision, dict[str, Tensor]] = {
        precision: outcome(oracle, case, precision) for precision in ("fp32", "mixed", "bf16")
    }
    num_atoms = ours["fp32"]["coords"].shape[1]
    theirs = of_boltz(oracle.record("prediction", case), num_atoms)
    mixed = oracle.record("precision", case)
    mixed["coords"] = mixed["coords"][:, :num_atoms]
    rows = []
    for measure, exact in ours["fp32"].items():
        allowed = relative(mixed[measure], theirs[measure])
        rows.append(Row(f"precision, Boltz's bf16-mixed: {measure}", name, 1, allowed, math.inf))
        rows.append(
            Row(f"precision, mixed: {measure}", name, 1, relative(ours["mixed"][measure], exact), WORSE * allowed)
        )
        rows.append(Row(f"precision, bf16: {measure}", name, 1, relative(ours["bf16"][measure], exact), math.inf))
    check(rows)
