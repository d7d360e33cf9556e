"""Checkpoints that Boltz's own class and callback wrote give us every tensor and size that they
give Boltz.
"""

from __future__ import annotations

import pytest
import torch

from foldcp.checkpoint.load import load
from foldcp.distributed.context_parallel import ContextParallel
from tests.parity.support.oracle import Oracle
from tests.parity.support.table import Measured, check, largest, worst
from tests.support.distributed import run

SIZES = ("tiny", "real", "averaged")


def measure(cp: ContextParallel, oracle: Oracle, name: str) -> list[Measured]:
    model = load(oracle.checkpoint(name), cp=cp)
    ours = model.state_dict()
    theirs = torch.load(oracle.path(f"weights of {name}"), weights_only=True)
    assert ours.keys() == theirs.keys(), f"other tensors: {ours.keys() ^ theirs.keys()}"
    return [
        (
            "loading (largest difference of a tensor)",
            max(largest(ours[key], theirs[key]) for key in ours),
            0.0,
        )
    ]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", SIZES)
def test_every_tensor_is_that_of_boltz(name: str, size: int, oracle: Oracle) -> None:
    check(worst(run(measure, size, oracle, name), f"checkpoint, {name}"))


def test_options_in_omegaconf_objects_are_the_same_options(oracle: Oracle) -> None:
    assert (
        load(oracle.checkpoint("averaged")).architecture
        == load(oracle.checkpoint("tiny")).architecture
    )
