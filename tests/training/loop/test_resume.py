"""A run that was killed goes on with the same losses, on any number of ranks."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.training.loop.checkpoints import list_checkpoints, newest_checkpoint
from foldcp.training.loop.settings import checkpoint_folder
from foldcp.training.loop.trainer import StepReport
from tests.support.distributed import run
from tests.training.loop.runs import SETTINGS, train, train_on_ranks

ALLOWED = 1e-5
EVERY = SETTINGS.checkpoint.every
# (data groups, ranks of each): examples_per_step is 2
MESHES = [(1, 1), (1, 2), (2, 1), (1, 3), (2, 2)]


@cache
def undisturbed() -> list[StepReport]:
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        return train(Path(folder))


def assert_same(reports: list[StepReport], first: int) -> None:
    expected = undisturbed()[first:]
    assert [report.step for report in reports] == [report.step for report in expected]
    for got, want in zip(reports, expected, strict=True):
        assert got.loss == pytest.approx(want.loss, rel=ALLOWED), got.step
        assert got.parts == pytest.approx(want.parts, rel=10 * ALLOWED, abs=ALLOWED), got.step
        assert got.num_tokens >= want.num_tokens  # padding is not counted


def on_mesh(out: Path, mesh: tuple[int, int], killed_at: int = 0) -> list[StepReport]:
    groups, size = mesh
    settings = replace(SETTINGS, context_parallel=size)
    return run(train_on_ranks, groups * size, out, settings, killed_at)[0]


@pytest.mark.parametrize("mesh", MESHES[1:])
def test_losses_do_not_depend_on_the_ranks(mesh: tuple[int, int], tmp_path: Path) -> None:
    assert_same(on_mesh(tmp_path, mesh), 0)


def killed(cp: ContextParallel, out: Path, size: int, step: int) -> list[StepReport]:
    return train_on_ranks(cp, out, replace(SETTINGS, context_parallel=size), step)


@pytest.mark.parametrize("number", range(1, len(MESHES)))
def test_killed_run_goes_on_with_the_same_losses(number: int, tmp_path: Path) -> None:
    """Killed on one mesh, and again on the next, it ends on a third."""
    rng = random.Random(number)
    first = rng.randrange(EVERY + 1, 2 * EVERY + 1)
    second = rng.randrange(2 * EVERY + 1, 3 * EVERY + 1)
    meshes = [MESHES[(number + i) % len(MESHES)] for i in range(3)]
    for mesh, step in zip(meshes, (first, second), strict=False):
        if mesh == (1, 1):
            mesh = (2, 1)  # a process of its own would be this one
        with pytest.raises(Exception, match=r"SIGKILL|process"):
            on_mesh(tmp_path, mesh, step)
    newest = newest_checkpoint(checkpoint_folder(tmp_path))
    assert newest is not None
    done = int(newest.stem.partition("-")[2])
    assert EVERY <= done < second and done % EVERY == 0
    assert_same(on_mesh(tmp_path, meshes[2]), done)
    assert len(list_checkpoints(checkpoint_folder(tmp_path))) == SETTINGS.checkpoint.keep


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    settings = replace(SETTINGS, max_steps=2)
    assert len(train(tmp_path, settings)) == 2
    (path,) = list_checkpoints(checkpoint_folder(tmp_path))
    changed = path.stat().st_mtime_ns
    assert train(tmp_path, settings) == []
    assert path.stat().st_mtime_ns == changed


def test_a_run_with_other_examples_is_refused(tmp_path: Path) -> None:
    train(tmp_path, replace(SETTINGS, max_steps=0))
    for change in ({"seed": 7}, {"examples_per_step": 4}):
        (name,) = change
        with pytest.raises(ValueError, match=f"step-00000000.ckpt: the run began with {name}="):
            train(tmp_path, replace(SETTINGS, **change))


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    train(tmp_path, replace(SETTINGS, max_steps=1))
    path = newest_checkpoint(checkpoint_folder(tmp_path))
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=f"{path}: not a checkpoint"):
        train(tmp_path)


def test_a_checkpoint_that_was_not_finished_is_removed(tmp_path: Path) -> None:
    folder = checkpoint_folder(tmp_path)
    folder.mkdir()
    unfinished = folder / ".step-00000009.ckpt.tmp"
    unfinished.write_bytes(b"PK")
    assert len(train(tmp_path, replace(SETTINGS, max_steps=1))) == 1
    assert not unfinished.exists()
