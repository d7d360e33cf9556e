"""Figures and picture of a simulated run, and the nodes of a cluster that is only planned."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise

import pytest

from foldcp.pipeline.planning.gantt import FAILED, STARTING, to_svg
from foldcp.pipeline.planning.nodes import describe_nodes, make_nodes, parse_node_sizes
from foldcp.pipeline.planning.simulated_run import class_label, figures, to_json, to_text
from foldcp.pipeline.scheduling.group_size import initial_shape
from foldcp.pipeline.scheduling.simulation.simulator import FREE_SECONDS, Faults
from tests.support.scheduling import COSTS, simulate, task, tasks

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("num_gpus", "sizes", "expected", "words"),
    [
        (0, "8", [8], "1 node of 8"),
        (20, "8", [8, 8, 4], "2 nodes of 8, 1 of 4"),
        (0, "3+8+5", [3, 8, 5], "1 node of 8, 1 of 5, 1 of 3"),
        (20, "3+8+5", [3, 8, 5, 3, 1], "1 node of 8, 1 of 5, 2 of 3, 1 of 1"),
    ],
)
def test_nodes_of_given_sizes(num_gpus: int, sizes: str, expected: list[int], words: str) -> None:
    nodes = make_nodes(num_gpus, parse_node_sizes(sizes))
    assert list(nodes.values()) == expected
    assert describe_nodes(nodes) == words


@pytest.mark.parametrize("text", ["", "0", "8+", "-8", "8x4", "3,8", "²"])
def test_sizes_of_nodes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"--gpus-per-node .*is not a number of GPUs"):
        parse_node_sizes(text)
    with pytest.raises(ValueError, match="more than 100,000 GPUs"):
        make_nodes(100_001, (8,))


def test_figures_by_hand() -> None:
    t = task(3_000)
    simulation = simulate([t, task(60_000)], {"a": 1})
    found = figures(simulation, {"a": 1}, price=2.0)
    seconds = COSTS.seconds(t, initial_shape(COSTS, 1, "mixed"))
    assert found.hours == pytest.approx((seconds + COSTS.hardware.start_seconds) / 3600)
    assert found.bound_hours == pytest.approx(seconds / 3600)
    assert found.use == pytest.approx(found.bound_hours / found.hours)
    assert found.cost == pytest.approx(2.0 * found.hours)
    assert (found.num_done, [name for name, _ in found.failed]) == (1, ["any"])
    assert "it needs" in found.failed[0][1]
    (only,) = found.classes
    assert (only.tokens, only.num_complexes, only.group_sizes) == ("2,049-3,072", 1, "1")
    assert only.cost == pytest.approx(2.0 * only.gpu_hours) == pytest.approx(2.0 * seconds / 3600)
    assert "60000 tokens" in to_text(found).splitlines()[0]


def test_figures_add_up_whatever_fails() -> None:
    nodes = {"a": 8, "b": 5}
    simulation = simulate(tasks(200, 1), nodes, Faults(worker_died=0.2))
    found = figures(simulation, nodes, price=1.5)
    assert found.folding_gpu_hours == pytest.approx(sum(c.gpu_hours for c in found.classes))
    assert found.lost_gpu_hours == pytest.approx(sum(c.lost_gpu_hours for c in found.classes))
    assert found.lost_gpu_hours > 0
    assert found.num_done == sum(c.num_complexes for c in found.classes)
    assert found.gpu_hours == pytest.approx(13 * simulation.now / 3600)
    assert 0.5 < found.use < found.busy_use < 1
    assert found.bound_hours <= found.hours
    read = json.loads(to_json(found))
    assert read["nodes"] == "1 node of 8, 1 of 5"
    assert len(read["classes"]) == len(found.classes)
    assert f"{found.cost:,.2f} for all GPUs" in to_text(found)
    assert "network_bytes_per_s" in to_text(found)
    assert "never measured" not in to_text(replace(found, guessed=()))


def test_class_labels_meet_at_their_ends() -> None:
    assert [class_label(n) for n in (256, 257, 32_768, 32_769)] == [
        "1-256",
        "257-512",
        "24,577-32,768",
        "over 32,768",
    ]


def test_picture_has_a_bar_for_each_attempt_and_no_two_overlap() -> None:
    nodes = {"a<b": 3, "c": 8}
    simulation = simulate(tasks(30, 2, 4_000), nodes, Faults(worker_died=0.2))
    root = ElementTree.fromstring(to_svg(simulation, nodes))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "a<b" in texts
    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.find(f"{SVG}title") is not None]
    titles = [bar.findtext(f"{SVG}title", "") for bar in bars]
    merged = [re.search(r"(\d+) complexes", title) for title in titles]  # short folds
    shown = sum(int(found[1]) if found else 1 for found in merged)
    assert shown >= len(simulation.scheduler.attempts)
    assert any(bar.get("fill") == FAILED for bar in bars)
    drawn = [bar for bar in root.iter(f"{SVG}rect") if "." in bar.get("y", "")]
    assert any(bar.get("fill") == STARTING for bar in drawn)
    tolerance = 0.5 + FREE_SECONDS  # pixels; the shortest bars are widened to be seen
    spans = sorted(
        (float(b.get("y", "")), float(b.get("x", "")), float(b.get("width", ""))) for b in drawn
    )
    for (y, x, width), (next_y, next_x, _) in pairwise(spans):
        assert next_y > y or next_x >= x + width - tolerance


def test_picture_of_many_folds_is_small() -> None:
    simulation = simulate(tasks(3_000, 3, 500, 0.3), {"a": 1})
    svg = to_svg(simulation, {"a": 1})
    assert len(svg) < 150_000
    assert " complexes</title>" in svg
