"""The state of the trunk between passes: kept, read by any number of ranks, and not trusted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foldcp.checkpoint.load import load as load_network
from foldcp.complex import Chain, Complex
from foldcp.config import Precision
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.model.trunk.passes import PassState
from foldcp.pipeline.config import WriteConfig, load
from foldcp.pipeline.execution.results import FoldResult
from foldcp.pipeline.execution.trunk_state import keeper as module
from foldcp.pipeline.execution.trunk_state.files import KeptStates, StateIdentity, complete_sets
from foldcp.pipeline.execution.trunk_state.keeper import StateKeeper
from foldcp.pipeline.execution.worker import Worker
from foldcp.pipeline.scheduling.cost_model import FoldShape
from foldcp.pipeline.scheduling.types import WorkerConfig
from tests.support.distributed import run
from tests.support.runs import sequence

KEY = "0123456789abcdef"
LENGTHS = (13, 9)  # not a multiple of 2 or 3 ranks
NUM_MSA_ROWS = 6


def write_msa(path: Path, query: str) -> None:
    """An alignment whose rows differ, so that it matters which of them a pass uses."""
    rows = [query]
    rows += [query[:shift] + "G" + query[shift + 1 :] for shift in range(NUM_MSA_ROWS - 1)]
    path.write_text("".join(f">row{number}\n{row}\n" for number, row in enumerate(rows)))


@pytest.fixture
def complex(tmp_path: Path) -> Complex:
    chains = []
    for name, length in zip("AB", LENGTHS, strict=True):
        path = tmp_path / f"{name}.a3m"
        write_msa(path, sequence(length, ord(name)))
        chains.append(Chain(name, "protein", sequence(length, ord(name)), msa=path))
    (tmp_path / "run").mkdir()
    return Complex("dimer", tuple(chains))


class StoppedError(Exception):
    """The end of a fold in the middle."""


def folded(
    cp: ContextParallel,
    complex: Complex,
    folder: str = "",
    stop_after: int = 0,
    precision: Precision = "fp32",
) -> tuple[np.ndarray, float, list[tuple[str, int, int]]]:
    """Coordinates, the score and all steps of a fold, or only the steps if it is stopped."""
    overrides = ["model.steps=3", "model.recycling=3", "msa.subsample=3", "model.samples=2"]
    config = load(overrides=overrides)
    worker = Worker(WorkerConfig("untrained:tiny", "untrained:tiny", precision, config, 1))
    worker.device = torch.device("cpu")
    worker.cp = cp
    worker.model = load_network("untrained:tiny", precision=precision, cp=cp)
    steps: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        steps.append((stage, done, total))
        if stop_after and stage == "trunk" and done == stop_after:
            raise StoppedError

    shape = FoldShape(cp.size, precision, 2, 100)
    try:
        result = worker.fold(complex, shape, WriteConfig(), progress, state_folder=folder)
    except StoppedError:
        return np.zeros(0), 0.0, steps
    assert isinstance(result, FoldResult), result
    if result.prediction is None:
        return np.zeros(0), 0.0, steps
    return result.prediction.coords, result.prediction.scores[0].ptm, steps


@pytest.mark.parametrize(
    ("size", "precision"), [(1, "fp32"), (2, "fp32"), (3, "fp32"), (2, "bf16")]
)
def test_fold_that_goes_on_from_a_pass_is_equal_bit_by_bit(
    complex: Complex, tmp_path: Path, size: int, precision: str
) -> None:
    folder = str(tmp_path / "run" / "trunk" / KEY)
    expected = run(folded, size, complex, "", 0, precision)[0]
    # In the third pass, whose first block is the fifth step.
    run(folded, size, complex, folder, 5, precision)
    assert len(list(Path(folder).iterdir())) == 3 * size, "one set of three files a rank"
    got = run(folded, size, complex, folder, 0, precision)[0]
    assert got[2][0] == ("trunk", 4, 8), "it began at the third pass"
    assert np.array_equal(got[0], expected[0]) and got[1] == expected[1]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (2, 1)])
def test_other_number_of_ranks_goes_on_with_the_same_state(
    complex: Complex, tmp_path: Path, before: int, after: int
) -> None:
    folder = str(tmp_path / "run" / "trunk" / KEY)
    expected = run(folded, after, complex)[0]
    run(folded, before, complex, folder, 5)
    got = run(folded, after, complex, folder)[0]
    assert got[2][0] == ("trunk", 4, 8)
    # Å, of coordinates up to 1,000 Å; another state moves them by more.
    np.testing.assert_allclose(got[0], expected[0], rtol=0, atol=5e-3)


IDENTITY = StateIdentity(KEY, "fp32", 0, 6, 3, 4, "torch.float32")
STATE = PassState(2, torch.randn(4, 5), torch.randn(4, 4, 3))


def make_keeper(folder: Path, identity: StateIdentity = IDENTITY) -> StateKeeper:
    failures = []
    keeper = StateKeeper(
        folder, identity, ContextParallel(), torch.device("cpu"), lambda: failures.append(1)
    )
    keeper.restore(4, 4, torch.float32)
    return keeper


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the state after two passes of one rank."""
    folder = tmp_path / "trunk" / KEY
    make_keeper(folder).keep(STATE)
    return folder


def is_restored(folder: Path, identity: StateIdentity = IDENTITY) -> bool:
    state = make_keeper(folder, identity).restore(4, 4, torch.float32)
    assert state is None or (torch.equal(state.s, STATE.s) and torch.equal(state.z, STATE.z))
    return state is not None


def test_only_a_complete_set_of_the_same_fold_is_used(folder: Path) -> None:
    assert is_restored(folder)
    for change in (
        {"key": "another"},
        {"seed": 1},
        {"precision": "mixed"},
        {"num_msa_rows": 7},
        {"msa_subsample": 0},
    ):
        assert not is_restored(folder, replace(IDENTITY, **change)), change
    description = folder / "pass2.rank0of1.json"
    text = description.read_text()
    description.write_text(json.dumps(json.loads(text) | {"num_ranks": 2}))
    assert not is_restored(folder), "the other rank's rows are missing"
    description.write_text(text[:20])
    assert not is_restored(folder)
    description.write_text(text)
    assert is_restored(folder)


@pytest.mark.parametrize("name", ["s", "z"])
def test_damaged_rows_are_not_used(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / f"pass2.rank0of1.{name}.npy"
    path.write_bytes(path.read_bytes()[:-8])
    assert not is_restored(folder)
    assert str(folder) in capsys.readouterr().err
    path.unlink()
    assert not is_restored(folder)


def test_full_disk_ends_the_keeping_and_not_the_fold(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The set before it stays, and is used."""
    keeper = make_keeper(folder)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(module, "write_rank_files", fail)
    for num_passes in (3, 4):
        keeper.keep(replace(STATE, num_passes=num_passes))
    assert not keeper.is_on
    assert capsys.readouterr().err.count("No space left on device") == 1
    assert is_restored(folder)


def test_next_set_replaces_the_one_before(folder: Path) -> None:
    make_keeper(folder).keep(replace(STATE, num_passes=3))
    assert list(complete_sets(folder, IDENTITY)) == [3]
    assert len(list(folder.iterdir())) == 3


def test_kept_states_of_a_run(tmp_path: Path, folder: Path) -> None:
    states = KeptStates(tmp_path)
    assert states.num_passes() == {KEY: 2}
    states.keep_only({KEY})
    assert folder.is_dir()
    states.keep_only(set())
    assert not folder.parent.exists() and states.num_passes() == {}


def test_state_is_not_kept_where_the_folder_of_the_run_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keeper = make_keeper(tmp_path / "elsewhere" / "trunk" / KEY)
    keeper.keep(STATE)
    assert not keeper.is_on and not (tmp_path / "elsewhere").exists()
    assert "not on this node" in capsys.readouterr().err
