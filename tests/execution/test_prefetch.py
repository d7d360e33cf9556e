"""Prefetching of the features of the next tasks, and dropping of others."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, GetTimeoutError

from foldcp.complex import Chain, Complex
from foldcp.pipeline.config import load
from foldcp.pipeline.execution import prefetch as module
from foldcp.pipeline.execution.prefetch import (
    MAX_TOKENS,
    RANKS_PER_MAKER,
    STORE_SHARE,
    FeatureMaker,
    FeaturePrefetcher,
    Prefetched,
    feature_bytes,
)
from foldcp.pipeline.scheduling.group_size import initial_shape
from tests.support.runs import sequence
from tests.support.scheduling import COSTS, task

SHAPE = initial_shape(COSTS, 1, "mixed")
CONFIG = load(overrides=["msa.missing=single-sequence"])
NODE = "a" * 56  # as long as Ray's ids of nodes are
OTHER = "b" * 56
STORE = 10**9  # B of all object stores
MONOMER = Complex("monomer", (Chain("A", "protein", sequence(13, 0)),))


class FakeActors:
    """Stands for the class of the makers; remembers what each of them was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []  # node and number
        self.cancelled: list[int] = []

    def options(self, scheduling_strategy: Any) -> Any:
        def make(number: int, *_: Any) -> str:
            self.asked.append((scheduling_strategy.node_id, number))
            return f"ref {number}"

        maker = SimpleNamespace(
            make=SimpleNamespace(remote=make),
            cancel=SimpleNamespace(remote=self.cancelled.append),
        )
        return SimpleNamespace(remote=lambda config: maker)


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> FakeActors:
    fake = FakeActors()
    monkeypatch.setattr(module, "FeatureMakerActor", fake)
    return fake


def test_update_makes_the_inputs_of_each_next_task_once(actors: FakeActors) -> None:
    prefetcher = FeaturePrefetcher(COSTS.config, COSTS)
    prefetcher.update([(task(800), SHAPE), (task(900), SHAPE)], {NODE: 1}, STORE)
    prefetcher.update([(task(900), SHAPE)], {NODE: 1}, STORE)
    assert actors.asked == [(NODE, 0), (NODE, 1)]
    assert actors.cancelled == [1]  # no longer among the next ones
    taken = prefetcher.take(task(900), SHAPE)
    assert taken is not None
    assert (taken.number, taken.ref) == (0, "ref 0")
    assert prefetcher.take(task(900), SHAPE) is None  # taken
    assert prefetcher.take(task(800), SHAPE) is None


def test_update_shares_the_work_among_the_nodes(actors: FakeActors) -> None:
    prefetcher = FeaturePrefetcher(COSTS.config, COSTS)
    next_tasks = [(task(800 + index), SHAPE) for index in range(8)]
    prefetcher.update(next_tasks, {NODE: RANKS_PER_MAKER + 1, OTHER: 1}, STORE)
    assert [node for node, _ in actors.asked] == [NODE, NODE, OTHER] * 2 + [NODE] * 2


def test_small_complexes_have_a_maker_for_every_rank(actors: FakeActors) -> None:
    prefetcher = FeaturePrefetcher(COSTS.config, COSTS)
    prefetcher.update(
        [(task(100 + index), SHAPE) for index in range(6)], {NODE: 2, OTHER: 1}, STORE
    )
    assert len(prefetcher._makers) == 3
    assert [node for node, _ in actors.asked] == [NODE, NODE, OTHER] * 2


def test_update_leaves_out_large_complexes(actors: FakeActors) -> None:
    prefetcher = FeaturePrefetcher(COSTS.config, COSTS)
    prefetcher.update([(task(MAX_TOKENS + 1), SHAPE)], {NODE: 1}, STORE)
    prefetcher.update([(task(900), SHAPE)], {}, 0)  # all nodes are gone
    assert not actors.asked
    assert prefetcher.take(task(MAX_TOKENS + 1), SHAPE) is None


def test_update_makes_no_more_inputs_than_the_stores_hold(actors: FakeActors) -> None:
    """Those that are folded first, which come last."""
    prefetcher = FeaturePrefetcher(COSTS.config, COSTS)
    next_tasks = [(task(900 + index), SHAPE) for index in range(9)]
    three = sum(feature_bytes(*each, CONFIG) for each in next_tasks[-3:])
    prefetcher.update(next_tasks, {NODE: 1}, math.ceil(three / STORE_SHARE))
    assert len(actors.asked) == 3
    prefetcher.update(next_tasks[:8], {NODE: 1}, math.ceil(three / STORE_SHARE))
    assert (len(actors.asked), actors.cancelled) == (4, [0])
    assert prefetcher.take(*next_tasks[7]) and prefetcher.take(*next_tasks[5])


@pytest.mark.parametrize("sees_deletions", [False, True])
def test_feature_bytes_are_those_of_a_maker(tmp_path: Path, sees_deletions: bool) -> None:
    rows = [sequence(130, index) for index in range(1_000)]
    text = "".join(f">{index}\n{row[:60]}ac{row[60:]}\n" for index, row in enumerate(rows))
    (tmp_path / "a.a3m").write_text(text.replace("ac", "", 1))
    chain = Chain("A", "protein", rows[0], msa=tmp_path / "a.a3m")
    compat = "corrected" if sees_deletions else "boltz"
    config = load(overrides=[f"compat={compat}"])
    inputs = FeatureMaker(config).make(0, Complex("monomer", (chain,)), SHAPE)
    assert inputs is not None and inputs.features.num_msa_rows == 1_000
    size = len(pickle.dumps(inputs))
    assert 0.9 < size / feature_bytes(task(130, depth=1_000), SHAPE, config) < 1


def test_maker_cancels_what_it_has_not_begun() -> None:
    maker = FeatureMaker(CONFIG)
    inputs = maker.make(0, MONOMER, SHAPE)
    assert inputs is not None
    assert inputs.features.num_tokens == 13
    assert not maker.cancel(0)
    assert maker.cancel(2)
    assert maker.make(1, MONOMER, SHAPE) is not None
    assert maker.make(2, MONOMER, SHAPE) is None
    assert maker.cancel(2)  # asked by a second rank, which so makes its own as the first one did


def test_maker_leaves_a_fault_of_the_complex_to_the_fold(tmp_path: Path) -> None:
    chain = replace(MONOMER.chains[0], msa=tmp_path / "missing.a3m")
    assert FeatureMaker(CONFIG).make(0, replace(MONOMER, chains=(chain,)), SHAPE) is None


def test_get_returns_inputs_that_are_being_made_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: dict[str, Any] = {"ref": "inputs"}

    def get(ref: str, timeout: float) -> Any:
        if isinstance(answers[ref], Exception):
            raise answers[ref]
        return answers[ref]

    monkeypatch.setattr(module.ray, "get", get)
    maker = SimpleNamespace(cancel=SimpleNamespace(remote=lambda number: "cancel"))
    prefetched = Prefetched(maker, 0, "ref")
    answers["cancel"] = False
    assert prefetched.get() == "inputs"
    for answer in (True, ActorDiedError(), GetTimeoutError()):
        answers["cancel"] = answer
        assert prefetched.get() is None
