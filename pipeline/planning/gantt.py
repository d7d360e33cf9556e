"""A picture of a simulated run (SVG): a line for each GPU, a bar for each fold."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from foldcp.pipeline.scheduling.simulation.simulator import Simulation
from foldcp.pipeline.scheduling.types import Attempt, Start, Stop

WIDTH = 1200  # of the time axis, in pixels
LEFT = 90  # of the axis: names of nodes
TOP = 60
BOTTOM = 60
MAX_HEIGHT = 1600  # of all lines
MIN_FOLD = 1.0  # pixels; narrower folds of a group are drawn as one
MIN_BAR = 0.4  # pixels of any bar
# From few tokens to many.
COLOURS = ("#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#084594")
CLASS_ENDS = (512, 1024, 2048, 4096, 8192)
STARTING = "#e8e8e8"
FAILED = "#cb181d"
TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1440, 2880, 7200, 14400, 43200)  # minutes
MAX_TICKS = 12


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle on some neighbouring lines."""

    first_line: int
    num_lines: int
    start: float
    end: float
    colour: str
    title: str


def write_gantt(path: Path, simulation: Simulation, nodes: Mapping[str, int]) -> None:
    """Write the picture; ValueError when the file cannot be written."""
    try:
        path.write_text(to_svg(simulation, nodes))
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from error


def to_svg(simulation: Simulation, nodes: Mapping[str, int]) -> str:
    """The picture as SVG: nodes from top to bottom, time from left to right."""
    num_gpus = sum(nodes.values())
    height = min(MAX_HEIGHT, max(2, 12 if num_gpus <= 64 else 3) * num_gpus)
    scale = WIDTH / max(simulation.now, 1.0)
    line = height / num_gpus
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" '
        f'height="{TOP + height + BOTTOM}" font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="100%" fill="white"/><text x="{LEFT}" y="20">'
        f"{len(simulation.scheduler.outcomes):,} complexes on {num_gpus:,} GPUs: "
        f"{simulation.now / 3600:.2f} hours (simulated)</text>",
        *_legend(),
    ]
    for bar in _bars(simulation, nodes, MIN_FOLD / scale):
        title = f"<title>{escape(bar.title)}</title>" if bar.title else ""
        parts.append(
            f'<rect x="{LEFT + bar.start * scale:.2f}" y="{TOP + bar.first_line * line:.2f}" '
            f'width="{max(MIN_BAR, (bar.end - bar.start) * scale):.2f}" '
            f'height="{bar.num_lines * line:.2f}" fill="{bar.colour}">{title}</rect>'
        )
    parts += _nodes(nodes, line)
    parts += _axis(simulation.now, scale, TOP + height)
    return "\n".join([*parts, "</svg>\n"])


def _legend() -> list[str]:
    labels = [f"up to {end:,} tokens" for end in CLASS_ENDS]
    labels += [f"over {CLASS_ENDS[-1]:,}", "group starts", "failed attempt"]
    parts: list[str] = []
    for index, (label, colour) in enumerate(zip(labels, (*COLOURS, STARTING, FAILED), strict=True)):
        x = LEFT + 145 * index
        parts.append(f'<rect x="{x}" y="32" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 17}" y="43">{label}</text>')
    return parts


def _nodes(nodes: Mapping[str, int], line: float) -> list[str]:
    """Lines between nodes, and their names where there is space for them."""
    parts: list[str] = []
    first = 0
    named_until = -math.inf
    for node, count in nodes.items():
        y = TOP + first * line
        parts.append(
            f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.2f}" y2="{y:.2f}" stroke="#888" '
            'stroke-width="0.3"/>'
        )
        middle = y + count * line / 2
        if middle - named_until >= 12:
            name = escape(node)
            parts.append(
                f'<text x="{LEFT - 6}" y="{middle + 4:.2f}" text-anchor="end">{name}</text>'
            )
            named_until = middle
        first += count
    return parts


def _axis(seconds: float, scale: float, y: float) -> list[str]:
    """Ticks in minutes, hours or days."""
    step = next((step for step in TICKS if seconds / 60 / step <= MAX_TICKS), TICKS[-1])
    parts = [f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y}" y2="{y}" stroke="black"/>']
    for number in range(int(seconds / 60 / step) + 1):
        x = LEFT + number * step * 60 * scale
        minutes = number * step
        label = f"{minutes} min" if step < 60 else f"{minutes // 60} h"
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 6}" stroke="black"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 20}" text-anchor="middle">{label}</text>')
    return parts


def _bars(simulation: Simulation, nodes: Mapping[str, int], shortest: float) -> list[Bar]:
    """The starts and the folds of all groups, on the lines of their GPUs."""
    lines = _lines_of_groups(simulation, nodes)
    attempts: dict[int, list[Attempt]] = {}
    for attempt in simulation.scheduler.attempts:
        attempts.setdefault(attempt.group, []).append(attempt)
    bars: list[Bar] = []
    for started, action in simulation.log:
        if isinstance(action, Start):
            folds = attempts.get(action.group, [])
            ready = folds[0].started if folds else started
            spans = [(started, ready, STARTING, "")]
            spans += _merged(folds, shortest)
            for first, count in _runs(lines[action.group]):
                bars += [Bar(first, count, *span) for span in spans]
    return bars


def _merged(attempts: list[Attempt], shortest: float) -> list[tuple[float, float, str, str]]:
    """Folds of a group as (start, end, colour, title), those too short to be seen together."""
    spans: list[tuple[float, float, str, str]] = []
    num_merged = 0
    for attempt in attempts:
        colour = _colour(attempt)
        title = f"{attempt.task.name}: {attempt.task.num_tokens:,} tokens, {attempt.outcome}"
        is_short = attempt.ended - attempt.started < shortest
        before = spans[-1] if spans else None
        in_batch = before is not None and attempt.shape.batch > 1 and before[1] == attempt.ended
        if before and (in_batch or (is_short and num_merged)) and before[2] == colour:
            num_merged = max(1, num_merged) + 1
            spans[-1] = (before[0], attempt.ended, colour, f"{num_merged} complexes")
        else:
            num_merged = int(is_short)
            spans.append((attempt.started, attempt.ended, colour, title))
    return spans


def _colour(attempt: Attempt) -> str:
    if attempt.outcome != "done":
        return FAILED
    return COLOURS[sum(attempt.task.num_tokens > end for end in CLASS_ENDS)]


def _lines_of_groups(simulation: Simulation, nodes: Mapping[str, int]) -> dict[int, list[int]]:
    """The lines of each group: the first free ones of its nodes."""
    free: dict[str, list[int]] = {}
    number = 0
    for node, count in nodes.items():
        free[node] = list(range(number, number + count))
        number += count
    lines: dict[int, list[int]] = {}
    node_of = {line: node for node, own in free.items() for line in own}
    for _, action in simulation.log:
        if isinstance(action, Start):
            lines[action.group] = [
                heapq.heappop(free[node]) for node, count in action.placement for _ in range(count)
            ]
        elif isinstance(action, Stop):
            for line in lines[action.group]:
                heapq.heappush(free[node_of[line]], line)
    return lines


def _runs(lines: list[int]) -> list[tuple[int, int]]:
    """Neighbouring lines as (first, number)."""
    runs: list[tuple[int, int]] = []
    for line in sorted(lines):
        if runs and line == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((line, 1))
    return runs
