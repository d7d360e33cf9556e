"""Losses and gradients of a whole training step are those of Boltz's module under autograd, with
its recycling, dropout and noise.
"""

from __future__ import annotations

import pytest
import torch

from foldcp.checkpoint.load import load
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.training.gradients import reduce_gradients, require_gradients
from foldcp.training.settings import Checkpointing, LossWeights, TrainingSettings
from foldcp.training.step import training_losses
from tests.parity.support.cases import TRAINING, TrainingCase
from tests.parity.support.oracle import Oracle
from tests.parity.support.table import Measured, check, worst
from tests.parity.support.training import ReplayedRandomness, example_of
from tests.support.distributed import run

ALLOWED_LOSS = 1e-5
# A gradient that is zero but for rounding is measured by this share of its module's largest.
NEGLIGIBLE = 1e-3
EQUAL_WEIGHTS = LossWeights(diffusion=1.0, distogram=1.0, bfactor=1.0, confidence=1.0)


def settings_of(case: TrainingCase, checkpointing: Checkpointing) -> TrainingSettings:
    return TrainingSettings(
        weights=EQUAL_WEIGHTS,
        recycling=case.recycling,
        multiplicity=case.multiplicity,
        samples=case.samples,
        sampling_steps=case.steps,
        pair_dropout=case.dropout,
        msa_dropout=0.6 * case.dropout,
        checkpointing=checkpointing,
    )


def measure(
    cp: ContextParallel, oracle: Oracle, case: TrainingCase, checkpointing: Checkpointing
) -> list[Measured]:
    record = oracle.record("training", case)
    model = load(oracle.checkpoint(case.size), cp=cp)
    require_gradients(model, EQUAL_WEIGHTS)
    example = example_of(oracle, case.input, record["truth"])
    randomness = ReplayedRandomness(record, case.recycling)
    own, losses = training_losses(model, example, settings_of(case, checkpointing), randomness)
    own.backward()
    reduce_gradients(model.parameters(), cp)
    assert not (case.dropout and randomness.uniform), "dropout drew less than Boltz's"
    found = []
    for name, loss in record["losses"].items():
        error = abs(float(losses.parts[name] - loss)) / abs(float(loss))
        found.append((f"loss: {name}", error, ALLOWED_LOSS))
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    theirs = record["grad_parameters"]
    for part in sorted({name.split(".")[0] for name in theirs}):
        of_part = {name: g for name, g in theirs.items() if name.split(".")[0] == part}
        floor = NEGLIGIBLE * max(float(g.norm()) for g in of_part.values())
        error = max(
            float((ours[name] - g).norm()) / (max(float(g.norm()), floor) or 1.0)
            for name, g in of_part.items()
        )
        found.append((f"gradients of a step: {part}", error, case.allowed_gradient))
    others = [name for name in ours.keys() - theirs.keys() if ours[name].any()]
    assert not others, f"Boltz has no gradient of {others}"
    return found


CHOICES: list[tuple[str, int, Checkpointing]] = [
    (case.name, size, checkpointing)
    for case in TRAINING.values()
    for size, checkpointing in zip(case.ranks, ("none", "blocks", "offload"), strict=True)
]


@pytest.mark.parametrize("name, size, checkpointing", CHOICES)
def test_training_step_is_that_of_boltz(
    name: str, size: int, checkpointing: Checkpointing, oracle: Oracle
) -> None:
    case = TRAINING[name]
    torch.set_num_threads(1)
    check(worst(run(measure, size, oracle, case, checkpointing), name))
