"""Steps of padded examples have the losses and gradients of the examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foldcp.training.loop import graphed_step
from foldcp.training.loop.graphed_step import GraphedStep, padded_example
from foldcp.training.settings import LossWeights, TrainingSettings
from foldcp.training.step import training_step
from tests.support.distributed import on_devices
from tests.training.loop.runs import ALONE, SETTINGS, made_up, network

STRUCTURE = TrainingSettings(
    weights=LossWeights(confidence=0.0),
    recycling=2,
    multiplicity=2,
    pair_dropout=0.0,
    msa_dropout=0.0,
    checkpointing="none",
)


@on_devices
def test_padded_steps_have_the_same_losses_and_gradients(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphed_step, "ATOM_MULTIPLE", 320)  # the examples have 256 atoms
    settings = replace(SETTINGS, step=STRUCTURE)
    mesh = replace(ALONE, device=torch.device(device))
    plain = network(tmp_path, settings, mesh)
    graphed = network(tmp_path, settings, mesh)
    step = GraphedStep(graphed.model, STRUCTURE, mesh.device)
    for number in range(5):  # on a GPU, those after the second are replays
        example = made_up(number)
        for made in (plain, graphed):
            made.flat.clear_gradients()
        expected = training_step(
            plain.model, example, STRUCTURE, torch.Generator().manual_seed(number), reduce=False
        )
        got = step(step.prepare(example, torch.Generator().manual_seed(number)))
        torch.testing.assert_close(got.loss, expected.loss, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got.parts, expected.parts, rtol=1e-5, atol=1e-6)
        error = (graphed.flat.gradients - plain.flat.gradients).norm()
        assert error <= 1e-4 * plain.flat.gradients.norm()


def test_padding_reaches_whole_multiples() -> None:
    example = made_up(0)
    padded = padded_example(example)
    assert (padded.features.num_tokens, padded.features.num_atoms) == (64, 256)
    assert padded.features.atom_mask.sum() == example.features.atom_mask.sum()


def test_what_a_graph_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cuda_graphs: needs step.pair_dropout=0, not 0.25"):
        replace(SETTINGS, cuda_graphs=True, step=replace(STRUCTURE, pair_dropout=0.25)).check()
    with pytest.raises(ValueError, match="cuda_graphs: needs context_parallel=1"):
        replace(SETTINGS, cuda_graphs=True, step=STRUCTURE, context_parallel=2).check()
