"""A training step: its losses and gradients on any number of ranks, however memory is saved."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache

import pytest
import torch
from torch import Tensor

from foldcp.checkpoint.load import load
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.training.gradients import require_gradients
from foldcp.training.settings import (
    CONFIDENCE_STAGE,
    Checkpointing,
    LossWeights,
    TrainingSettings,
)
from foldcp.training.step import Losses, training_step
from tests.support.distributed import run
from tests.training.examples import example, with_symmetries

SETTINGS = TrainingSettings(
    weights=LossWeights(diffusion=1.0, distogram=1.0, bfactor=1.0, confidence=1.0),
    recycling=1,
    random_recycling=False,
    multiplicity=2,
    samples=2,
    sampling_steps=2,
)
Result = tuple[Losses, dict[str, Tensor]]


def step(cp: ContextParallel, settings: TrainingSettings, trained: str = "*") -> Result:
    """The losses, and the gradients of the parameters that are trained, by a pattern of names."""
    model = load("untrained:tiny", cp=cp)
    require_gradients(model, settings.weights)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and fnmatchcase(name, trained))
    generator = torch.Generator().manual_seed(5)
    losses = training_step(model, with_symmetries(example()), settings, generator)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return losses, gradients


@cache
def on_one_rank() -> Result:
    return step(ContextParallel(), SETTINGS)


def assert_equal(got: Result, expected: Result) -> None:
    torch.testing.assert_close(got[0].parts, expected[0].parts, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got[0].loss, expected[0].loss, rtol=1e-4, atol=1e-6)
    assert got[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        error = (got[1][name] - gradient).norm()
        assert error <= 1e-3 * gradient.norm() + 1e-4, name


@pytest.mark.parametrize("size", [2, 3])
def test_training_step_does_not_depend_on_the_number_of_ranks(size: int) -> None:
    for got in run(step, size, SETTINGS):
        assert_equal(got, on_one_rank())


def test_training_step_does_not_depend_on_what_is_kept() -> None:
    settings = replace(SETTINGS, checkpointing="offload")
    assert_equal(step(ContextParallel(), settings), on_one_rank())


def test_every_parameter_that_is_trained_has_a_gradient() -> None:
    missing = [name for name, gradient in on_one_rank()[1].items() if not gradient.any()]
    absent = ("template_module", "contact_conditioning", "cyclic")  # in the example
    assert all(any(part in name for part in absent) for name in missing), missing


@pytest.mark.parametrize("checkpointing", ["none", "blocks", "offload"])
@pytest.mark.parametrize(
    "pattern",
    [
        "msa_module.layers.*.outer_product_mean*",
        "msa_module.layers.*.pairformer_layer*",
        "pairformer_module.layers.*.transition_z*",
        "structure_module*",
    ],
)
def test_frozen_parameters_change_no_gradient_of_the_others(
    pattern: str, checkpointing: Checkpointing
) -> None:
    settings = replace(SETTINGS, checkpointing=checkpointing)
    losses, gradients = step(ContextParallel(), settings, pattern)
    whole_losses, whole = on_one_rank()
    assert gradients
    assert_equal((losses, gradients), (whole_losses, {name: whole[name] for name in gradients}))


def test_confidence_stage_trains_the_confidence_alone() -> None:
    losses, gradients = step(ContextParallel(), replace(SETTINGS, weights=CONFIDENCE_STAGE))
    assert losses.parts.keys() == {"plddt", "pde", "resolved", "pae"}
    assert all(name.startswith("confidence_module.") for name in gradients)
    assert any(gradient.any() for gradient in gradients.values())


def test_bf16_score_network_is_refused() -> None:
    model = load("untrained:tiny", precision="mixed")
    with pytest.raises(ValueError, match="load the network with sampling='fp32'"):
        training_step(model, example(), SETTINGS, torch.Generator())


def test_settings_name_the_value_that_is_out_of_range() -> None:
    with pytest.raises(ValueError, match="pair_dropout must be in \\[0, 1\\), not 1"):
        TrainingSettings(pair_dropout=1.0)
    with pytest.raises(ValueError, match="the weight of distogram must be 0 or more, not -1"):
        LossWeights(distogram=-1.0)
    with pytest.raises(ValueError, match="multiplicity must be at least 1, not 0"):
        TrainingSettings(multiplicity=0)
