"""Progress of the stages of a prediction."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import foldcp
from foldcp.features.msa.subsample import MsaSubsample
from foldcp.pipeline.fold_one import FoldProgress
from foldcp.progress import DoneSteps, StepDone


def test_fold_reports_every_step_of_every_stage() -> None:
    calls: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        calls.append((stage, done, total))

    chain = foldcp.Chain("A", "protein", "MKTAYIAKQRQ")
    foldcp.fold(
        foldcp.load_model("untrained:tiny", device="cpu"),
        foldcp.Complex("peptide", (chain,)),
        samples=3,
        parallel_samples=2,
        steps=4,
        recycling=1,
        progress=progress,
    )
    # Two passes of an MSA block and a pairformer block; a block and its scores for each sample.
    expected = {"trunk": 4, "sampling": 8, "confidence": 6}
    assert calls == [(stage, i, n) for stage, n in expected.items() for i in range(n + 1)]


def test_done_steps_are_those_whose_events_the_gpu_has_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[SimpleNamespace] = []

    def make_event() -> SimpleNamespace:
        event = SimpleNamespace(is_done=False, is_recorded=False)
        event.record = lambda: setattr(event, "is_recorded", True)
        event.query = lambda: event.is_done
        events.append(event)
        return event

    monkeypatch.setattr(torch.cuda, "Event", make_event)
    steps = DoneSteps(torch.device("cuda"))
    assert steps.last() is None
    for done in (4, 5, 6):
        steps("trunk", done, 8)
    steps("sampling", 0, 2)
    assert all(event.is_recorded for event in events) and steps.last() is None
    events[0].is_done = events[1].is_done = True
    assert steps.last() == StepDone("trunk", 5, 8, first=4) == steps.last()
    for event in events:
        event.is_done = True
    assert steps.last() == StepDone("sampling", 0, 2, first=0)


@pytest.mark.parametrize(("num_rows", "max_rows"), [(50, 0), (50, 50), (1, 8)])
def test_msa_subsample_uses_all_rows_of_a_small_msa(num_rows: int, max_rows: int) -> None:
    assert MsaSubsample(num_rows, max_rows, seed=1)(0) is None


def test_msa_subsample_draws_again_for_each_pass_and_seed() -> None:
    draws = [MsaSubsample(50, 20, seed)(index) for seed in (1, 2) for index in (0, 1)]
    for rows in draws:
        assert rows is not None and len(set(rows)) == 20 and max(rows) < 50
    assert len({tuple(rows or ()) for rows in draws}) == 4
    assert MsaSubsample(50, 20, 1)(1) == draws[1]


def test_bar_of_one_fold_shows_what_the_device_has_done(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = dict.fromkeys(["features", "templates", "msa", "confidence"], 1.0)
    seconds |= {"trunk": 2.0, "diffusion": 4.0}
    steps = DoneSteps(torch.device("cpu"))
    with FoldProgress(seconds, steps, hidden=False) as progress:
        steps("trunk", 1, 2)
        steps("sampling", 0, 8)
        steps("sampling", 2, 8)
        waiting: Any = SimpleNamespace(query=lambda: False)  # on the GPU's queue
        steps._launched.append((StepDone("confidence", 2, 2, 0), waiting))
    assert progress.bar.n == pytest.approx(1 + 4 + 1)
    assert "sampling 2/8" in capsys.readouterr().err
