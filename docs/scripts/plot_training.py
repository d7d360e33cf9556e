"""A picture (SVG) of a training run: its losses, and lDDT of the structures that it validated.

python docs/scripts/plot_training.py RUN docs/images/training.svg --average 200
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foldcp.pipeline.storage.training.training_log import read_training_log

WIDTH, HEIGHT = 420, 240  # of a panel's axes
LEFT, TOP, BETWEEN = 60, 40, 90
COLORS = {"mse": "#1f5fa8", "smooth_lddt": "#b3541e", "distogram": "#2f7d4f"}
SPLITS = {"train": "#1f5fa8", "held-out": "#b3541e"}


class Panel:
    """Axes with ticks, and lines of values by step."""

    def __init__(self, place: int, title: str, last_step: int, ticks: Sequence[float]) -> None:
        self.x0 = LEFT + place * (WIDTH + BETWEEN)
        self.last_step = last_step
        self.low, self.high = ticks[0], ticks[-1]
        self.log = self.low > 0
        right, bottom = self.x0 + WIDTH, TOP + HEIGHT
        self.parts = [
            _text(self.x0, TOP - 14, title, weight="bold"),
            _path([(self.x0, TOP), (self.x0, bottom), (right, bottom)], "#333"),
        ]
        for tick in ticks:
            y = self._y(tick)
            self.parts.append(_path([(self.x0, y), (self.x0 + WIDTH, y)], "#ddd"))
            self.parts.append(_text(self.x0 - 8, y + 4, f"{tick:g}", anchor="end"))
        for share in (0.0, 0.5, 1.0):
            x = self.x0 + share * WIDTH
            step = f"{round(share * last_step):,}"
            self.parts.append(_text(x, TOP + HEIGHT + 18, step, anchor="middle"))
        self.parts.append(_text(self.x0 + WIDTH / 2, TOP + HEIGHT + 36, "step", anchor="middle"))
        self.labels = 0

    def _y(self, value: float) -> float:
        ends = np.array([self.low, value, self.high])
        low, x, high = np.log(ends) if self.log else ends
        return float(TOP + HEIGHT * (1 - (x - low) / (high - low)))

    def line(self, steps: Sequence[int], values: Sequence[float], color: str, label: str) -> None:
        """A line, its points as dots where these are few."""
        points = [
            (self.x0 + WIDTH * step / self.last_step, self._y(value))
            for step, value in zip(steps, values, strict=True)
        ]
        self.parts.append(_path(points, color, 1.6))
        if len(points) <= 20:
            dots = (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in points)
            self.parts += dots
        y = TOP + 14 + 17 * self.labels
        self.parts.append(_text(self.x0 + WIDTH - 8, y, label, anchor="end", color=color))
        self.labels += 1


def _path(points: Sequence[tuple[float, float]], color: str, width: float = 1.0) -> str:
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{text}" fill="none" stroke="{color}" stroke-width="{width}"/>'


def _text(
    x: float,
    y: float,
    text: str,
    anchor: str = "start",
    color: str = "#222",
    weight: str = "normal",
) -> str:
    style = f'text-anchor="{anchor}" fill="{color}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{text}</text>'


def means(rows: Sequence[dict[str, Any]], value: str, every: int) -> tuple[list[int], list[float]]:
    """Steps, and the means of a value over `every` steps up to each."""
    values: defaultdict[int, list[float]] = defaultdict(list)
    for row in rows:
        values[-(-row["step"] // every) * every].append(row[value])
    return list(values), [float(np.mean(found)) for found in values.values()]


def draw(steps: Sequence[dict[str, Any]], validation: Sequence[dict[str, Any]], every: int) -> str:
    """The picture, of means over `every` steps."""
    last = -(-steps[-1]["step"] // every) * every
    losses = Panel(0, f"losses, means of {every} steps", last, [0.01, 0.1, 1, 10])
    for name, color in COLORS.items():
        losses.line(*means(steps, name, every), color, name)
    scores = Panel(1, "lDDT of validated structures", last, [0, 0.25, 0.5, 0.75, 1])
    for split, color in SPLITS.items():
        rows = [row for row in validation if row["split"] == split]
        scores.line(*means(rows, "lddt", 1), color, split)
    width = LEFT + 2 * WIDTH + BETWEEN + 20
    height = TOP + HEIGHT + 50
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *losses.parts,
            *scores.parts,
            "</svg>\n",
        ]
    )


def main() -> None:
    """Draw a run's log."""
    parser = argparse.ArgumentParser(description="A picture of a training run.")
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("picture", type=Path, help="SVG")
    parser.add_argument("--average", type=int, default=100, help="steps of a mean")
    options = parser.parse_args()
    steps = read_training_log(options.run / "log", "steps").to_pylist()
    validation = read_training_log(options.run / "log", "validation").to_pylist()
    if not steps:
        parser.error(f"{options.run}: has no log of steps")
    options.picture.write_text(draw(steps, validation, options.average))


if __name__ == "__main__":
    main()
