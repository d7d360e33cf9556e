"""Plans of many complexes, by size, beside those of the simulated scheduler."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from foldcp.complex import Chain, Complex
from foldcp.pipeline.inputs.tasks import Task, TaskList
from foldcp.pipeline.planning import plan
from foldcp.pipeline.planning.plan import Entry, Plan, make_plan, to_json, to_text
from foldcp.pipeline.planning.schedule import PlannedGroup, by_size, simulated
from tests.support.scheduling import COSTS, SETTINGS, task, tasks

GPU = {"a": 1}
NODE = {"a": 8}


ALONE = replace(SETTINGS, batch=1)


def groups(entries: tuple[PlannedGroup, ...]) -> dict[tuple[int, int], tuple[object, int]]:
    """Shape and number of complexes by size."""
    found: dict[tuple[int, int], tuple[object, int]] = {}
    for entry in entries:
        size = (entry.task.num_tokens, entry.task.msa_depth)
        _, count = found.get(size, (None, 0))
        found[size] = (entry.shape, count + entry.num_complexes)
    return found


def work() -> list[Task]:
    """Tasks of some sizes that occur often, two of which are too large for a GPU."""
    sizes = [300, 300, 301, 1200, 1200, 1200, 5000, 5000, 40_000, 40_000]
    return [
        task(size, f"{size}-{index}-{depth}", depth=depth)
        for index, size in enumerate(sizes * 3)
        for depth in (1, 100, 4096)
    ]


def test_a_plan_by_size_is_that_of_the_simulated_scheduler() -> None:
    one_by_one = simulated(work(), COSTS, GPU, ALONE)
    by_class = by_size(work(), COSTS, GPU, ALONE)
    assert groups(by_class.groups) == groups(one_by_one.groups)
    assert len(by_class.groups) == 12
    assert len(by_class.too_large) == 18
    assert by_class.too_large == one_by_one.too_large
    assert by_class.seconds == pytest.approx(one_by_one.seconds, rel=1e-6)


def test_a_plan_by_size_counts_batches() -> None:
    small = [task(250 + index % 3, f"{index}") for index in range(2_000)]
    one_by_one = simulated(small, COSTS, NODE, SETTINGS)
    by_class = by_size(small, COSTS, NODE, SETTINGS)
    assert by_class.seconds == pytest.approx(one_by_one.seconds, rel=0.05)
    assert by_class.seconds < 0.9 * by_size(small, COSTS, NODE, ALONE).seconds
    assert all(group.shape.batch > 1 for group in by_class.groups)


def test_a_plan_by_size_of_many_gpus_is_about_as_long_as_simulated() -> None:
    many = tasks(3_000, seed=3, scale=700)
    one_by_one = simulated(many, COSTS, NODE, SETTINGS)
    by_class = by_size(many, COSTS, NODE, SETTINGS)
    assert by_class.seconds == pytest.approx(one_by_one.seconds, rel=0.02)
    assert sum(group.num_complexes for group in by_class.groups) == len(one_by_one.groups)


def test_a_fold_that_would_outlast_all_others_has_a_larger_group() -> None:
    many = [task(400, f"{index}") for index in range(20)]
    [large] = [
        group
        for group in by_size([*many, task(6000)], COSTS, NODE, SETTINGS).groups
        if group.task.num_tokens == 6000
    ]
    [alone] = by_size([task(6000)], COSTS, NODE, SETTINGS).groups
    assert large.shape.num_ranks > 1
    assert alone.shape.num_ranks >= large.shape.num_ranks


def test_large_complexes_have_the_groups_that_cost_least() -> None:
    """In GPU-seconds, among groups that hold them; all planned at once and one by one."""
    many = [task(9250, f"{index}", depth=4096) for index in range(40)]
    [group] = by_size(many, COSTS, NODE, SETTINGS).groups
    fewest = group.shape.num_ranks
    costs = {
        num_ranks: num_ranks * COSTS.seconds(many[0], replace(group.shape, num_ranks=num_ranks))
        for num_ranks in range(fewest, 9)
    }
    assert min(costs, key=costs.__getitem__) == fewest
    one_by_one = simulated(many, COSTS, NODE, SETTINGS).groups
    sizes = Counter(found.shape.num_ranks for found in one_by_one)
    assert sizes[fewest] > 20


def test_sizes_of_like_depths_are_one_class() -> None:
    deep = [task(500, f"{depth}", depth) for depth in (4000, 4050, 4096, 127, 126, 126)]
    found = by_size(deep, COSTS, GPU, SETTINGS).groups
    assert [(group.task.msa_depth, group.num_complexes) for group in found] == [
        (126, 2),
        (127, 1),
        (4096, 3),
    ]


def planned(work: list[Task], max_simulated: int, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(plan, "MAX_SIMULATED", max_simulated)
    return make_plan(TaskList(tuple(work), (), 0), COSTS, GPU, ALONE)


def summary(text: str) -> list[str]:
    """The lines that do not depend on the scheduler's last seconds."""
    return [line for line in text.splitlines() if not line.startswith("on ")]


def test_plans_of_both_kinds_have_the_same_text(monkeypatch: pytest.MonkeyPatch) -> None:
    one_by_one = planned(work(), 90, monkeypatch)
    by_class = planned(work(), 89, monkeypatch)
    assert summary(to_text(by_class)) == summary(to_text(one_by_one))
    assert by_class.gpu_hours == pytest.approx(one_by_one.gpu_hours)
    assert len(one_by_one.entries) == 72
    entries = json.loads(to_json(by_class))["entries"]
    assert [entry["num_complexes"] for entry in entries] == [6, 6, 6, 3, 3, 3, 9, 9, 9, 6, 6, 6]
    assert {entry["name"] for entry in entries} == {""}


def test_a_class_of_one_complex_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    named = Complex("mine", (Chain("A", "protein", "MKT"),), organism="Human")
    one = Task(named, "k", 300, 1)
    found = planned([one, task(400, "x"), task(400, "y")], 0, monkeypatch).entries
    assert [(entry.name, entry.organism, entry.num_complexes) for entry in found] == [
        ("mine", "Human", 1),
        ("", "", 2),
    ]


@pytest.mark.parametrize(
    ("counts", "expected"), [([1], 10), ([1, 1], 15), ([1, 2], 20), ([3, 1], 10), ([2, 2], 15)]
)
def test_the_median_counts_every_complex(counts: list[int], expected: float) -> None:
    entry = Entry("", "", 300, 1, 1, "mixed", 1.0, 2.0, 0.0)
    entries = [
        replace(entry, seconds=10.0 * number, num_complexes=count)
        for number, count in enumerate(counts, 1)
    ]
    assert plan._median(entries[::-1]) == expected


def test_a_plan_counts_complexes_of_no_named_organism_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def first_line(*organisms: str) -> str:
        tasks = [task(100, f"{index}") for index in range(len(organisms))]
        named = [
            replace(found, complex=replace(found.complex, organism=organism))
            for found, organism in zip(tasks, organisms, strict=True)
        ]
        return summary(to_text(planned(named, 90, monkeypatch)))[1].partition(" ")[2].strip()

    assert first_line("", "") == "2"
    assert first_line("Human", "Rat", "9606") == "3: 2 human, 1 of other organisms"
    assert first_line("Human", "", "") == (
        "3: 1 human, 0 of other organisms, 2 of no named organism"
    )
