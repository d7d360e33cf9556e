"""Errors of bf16: those of our `mixed` beside those of Boltz's own bf16-mixed, and of our `bf16`.

Errors are measured to fp32 of the same code, on the same random numbers. Boltz's are those of a
GPU, on a CPU: see reference/precision.py.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from foldcp.checkpoint.precision import Sampling
from foldcp.config import Precision
from tests.parity.support.cases import CASES, PRECISION, Case
from tests.parity.support.oracle import Oracle
from tests.parity.support.replay import replayed
from tests.parity.support.table import Row, check, relative

WORSE = 1.25  # times Boltz's error


def of_ours(
    oracle: Oracle, case: Case, precision: Precision, sampling: Sampling | None = None
) -> dict[str, Tensor]:
    got = replayed(oracle, case, precision=precision, sampling=sampling)
    assert got.prediction.pae is not None
    pae = torch.stack([torch.tensor(x) for x in got.prediction.pae])
    return {
        "s": got.s,
        "z": got.z,
        "coords": got.coords,
        "plddt": torch.tensor(got.prediction.plddt),
        "pae": pae,
    }


def of_boltz(record: dict[str, Any]) -> dict[str, Tensor]:
    confidence = record["confidence"]
    coords = record["sample"]["coords"]
    return {"s": record["s"], "z": record["z"], "coords": coords} | {
        key: confidence[key] for key in ("plddt", "pae")
    }


@pytest.mark.parametrize("name", PRECISION)
def test_bf16_costs_no_more_than_in_boltz(name: str, oracle: Oracle) -> None:
    case = CASES[name]
    exact, mixed, bf16 = (
        of_ours(oracle, case, precision) for precision in ("fp32", "mixed", "bf16")
    )
    sampler = of_ours(oracle, case, "fp32", "bf16")["coords"]
    trunk = of_ours(oracle, case, "mixed", "fp32")["coords"]
    theirs = of_boltz(oracle.record("prediction", case))
    their_mixed = oracle.record("precision", case)
    rows = []
    for what, x in exact.items():
        real = (slice(None), slice(x.shape[1]))  # Boltz's coordinates have padding
        allowed = relative(their_mixed[what][real], theirs[what][real])
        rows.append(Row(f"precision, Boltz's bf16-mixed: {what}", name, 1, allowed, math.inf))
        rows.append(
            Row(
                f"precision, mixed: {what}",
                name,
                1,
                relative(mixed[what], x),
                WORSE * allowed,
            )
        )
        rows.append(Row(f"precision, bf16: {what}", name, 1, relative(bf16[what], x), math.inf))
    coords = exact["coords"]
    rows.append(
        Row(
            "precision, bf16 in the sampler alone: coords",
            name,
            1,
            relative(sampler, coords),
            math.inf,
        )
    )
    rows.append(
        Row(
            "precision, mixed but for the sampler: coords",
            name,
            1,
            relative(trunk, coords),
            math.inf,
        )
    )
    check(rows)
