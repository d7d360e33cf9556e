"""Checkpoints of a run: what reads them, fine-tuning, numbers that are not finite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foldcp.checkpoint.load import load
from foldcp.training.example import TrainingExample
from foldcp.training.loop.checkpoints import CheckpointWriter, newest_checkpoint
from foldcp.training.loop.settings import ModelSettings, checkpoint_folder
from foldcp.training.loop.trainer import MAX_SKIPPED, AveragedWeights
from tests.training.loop.runs import SETTINGS, draw_all, made_up, network, train, trainer


def trained(out: Path) -> Path:
    train(out, replace(SETTINGS, max_steps=3))
    path = newest_checkpoint(checkpoint_folder(out))
    assert path is not None
    return path


def test_a_checkpoint_is_loaded_with_its_averaged_weights(tmp_path: Path) -> None:
    made, _ = trainer(tmp_path, replace(SETTINGS, max_steps=3))
    made.run(draw_all, float("inf"))
    path = newest_checkpoint(checkpoint_folder(tmp_path))
    assert path is not None
    loaded = load(path)
    assert loaded.architecture == made.network.model.architecture
    plain = {name: x.clone() for name, x in made.network.model.state_dict().items()}
    with AveragedWeights(made.network):
        expected = {name: x.clone() for name, x in made.network.model.state_dict().items()}
    for name, weight in loaded.state_dict().items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=0)
    assert any(not torch.equal(plain[name], x) for name, x in expected.items())
    after = made.network.model.state_dict()
    assert all(torch.equal(after[name], x) for name, x in plain.items())


def test_a_checkpoint_has_no_code_and_boltzs_layout(tmp_path: Path) -> None:
    content = torch.load(trained(tmp_path), weights_only=True)
    assert content["global_step"] == 3
    assert content["ema"]["cur_step"] == 3
    assert content["ema"]["ema_weights"].keys() == content["state_dict"].keys()
    (optimizer,) = content["optimizer_states"]
    with_decay, without = (group["params"] for group in optimizer["param_groups"])
    assert [*with_decay, *without] == list(range(len(optimizer["state"])))
    (schedule,) = content["lr_schedulers"]
    assert schedule["last_epoch"] == 3
    names = content["foldcp"]["trained"]
    for number, name in enumerate(names):
        state = optimizer["state"][number]
        assert state["exp_avg"].shape == content["state_dict"][name].shape
        assert state["step"] == 3


def test_optimizer_states_are_those_of_torch(tmp_path: Path) -> None:
    content = torch.load(trained(tmp_path), weights_only=True)
    (saved,) = content["optimizer_states"]
    weights = content["state_dict"]
    names = content["foldcp"]["trained"]
    groups = [
        {"params": [torch.nn.Parameter(weights[names[i]]) for i in group["params"]]}
        for group in saved["param_groups"]
    ]
    adam = torch.optim.AdamW(groups)
    adam.load_state_dict(saved)
    assert adam.param_groups[0]["betas"] == (0.9, 0.95)
    assert adam.param_groups[1]["weight_decay"] == 0.0


def test_fine_tuning_begins_with_the_averaged_weights(tmp_path: Path) -> None:
    path = trained(tmp_path / "first")
    chosen = ModelSettings(init=str(path), train=("distogram_module.*",))
    made = network(tmp_path / "second", replace(SETTINGS, model=chosen))
    assert made.num_steps == 0
    expected = load(path).state_dict()
    weights = made.model.state_dict()
    assert all(torch.equal(weights[name], x) for name, x in expected.items())
    assert {name.split(".")[0] for name in made.flat.parameters} == {"distogram_module"}


def test_a_checkpoint_of_something_else_is_named(tmp_path: Path) -> None:
    path = trained(tmp_path)
    content = torch.load(path, weights_only=True)
    del content["foldcp"]
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"{path}: not a checkpoint of `foldcp train`"):
        train(tmp_path)


def test_a_checkpoint_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path / "checkpoints", 1)
    writer.folder.rmdir()
    writer.write(1, {"a": 1})
    with pytest.raises(ValueError, match="checkpoints: the checkpoint cannot be written"):
        writer.wait()


def with_nan(numbers: set[int]) -> object:
    """Examples, of which those of some numbers have a coordinate that is not a number."""

    def draw(seeds: Iterable[int]) -> Iterator[TrainingExample]:
        for number, _ in enumerate(seeds):
            made = made_up(0)
            if number in numbers:
                conformers = made.truth.conformers.clone()
                conformers[0, 0] = torch.nan
                truth = replace(made.truth, conformers=conformers)
                made = replace(made, truth=truth, name=f"bad {number}")
            yield made

    return draw


def test_a_step_without_finite_gradients_is_skipped_and_counted(tmp_path: Path) -> None:
    settings = replace(SETTINGS, max_steps=3)
    made, recorder = trainer(tmp_path, settings)
    made.run(with_nan({2}), float("inf"))  # type: ignore[arg-type]
    assert [report.skipped for report in recorder.reports] == [False, True, False]
    assert made.num_skipped == 1
    assert all(torch.isfinite(p).all() for p in made.network.model.parameters())
    assert network(tmp_path, settings).num_skipped == 1
    assert network(tmp_path, settings).optimizer.num_updates == 2


def test_too_many_skipped_steps_name_the_examples(tmp_path: Path) -> None:
    made, recorder = trainer(tmp_path, replace(SETTINGS, max_steps=100))
    with pytest.raises(ValueError, match=f"not finite in {MAX_SKIPPED} steps in a row.*bad 19"):
        made.run(with_nan(set(range(100))), float("inf"))  # type: ignore[arg-type]
    assert len(recorder.reports) == MAX_SKIPPED - 1


def test_no_example_is_made_for_after_the_last_step(tmp_path: Path) -> None:
    """It might be one that cannot be made, which would cost the last step."""
    settings = replace(SETTINGS, max_steps=2)
    num_made = 0

    def counted(seeds: Iterable[int]) -> Iterator[TrainingExample]:
        nonlocal num_made
        for example in draw_all(seeds):
            num_made += 1
            yield example

    made, recorder = trainer(tmp_path, settings)
    made.run(counted, float("inf"))
    assert len(recorder.reports) == settings.max_steps
    assert num_made == settings.max_steps * settings.examples_per_step


def test_a_run_ends_in_time_with_a_checkpoint(tmp_path: Path) -> None:
    made, recorder = trainer(tmp_path)
    ending = made.run(draw_all, 1e-3)
    assert ending.reason == "time"
    assert ending.num_steps == len(recorder.reports) < 5
    assert newest_checkpoint(checkpoint_folder(tmp_path)) is not None
