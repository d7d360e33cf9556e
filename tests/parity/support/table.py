"""The table of comparisons: quantity, measured error and allowed error."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One comparison; the error is relative (L2) unless the module's name says otherwise."""

    module: str
    case: str
    ranks: int
    error: float
    allowed: float

    @property
    def passes(self) -> bool:
        return self.error <= self.allowed  # and not NaN


ROWS: list[Row] = []


Measured = tuple[str, float, float]  # what, error, allowed


def check(rows: Iterable[Row]) -> None:
    """Into the table; fails if any is too far off."""
    rows = list(rows)
    assert rows, "nothing was compared"
    ROWS.extend(rows)
    wrong = [f"{row.module}: {row.error:.2e} > {row.allowed:.0e}" for row in rows if not row.passes]
    assert not wrong, "; ".join(wrong)


def worst(ranks: list[list[Measured]], case: str) -> list[Row]:
    """The largest error over the ranks; every rank compared the same."""
    rows = []
    for same in zip(*ranks, strict=True):
        (name, allowed), *others = {(module, allowed) for module, _, allowed in same}
        assert not others
        errors = [error for _, error, _ in same]
        rows.append(
            Row(
                name,
                case,
                len(ranks),
                next((e for e in errors if e != e), max(errors)),
                allowed,
            )
        )
    return rows


def render() -> str:
    """Module, case, the error on each number of ranks, the allowed one."""
    cells: dict[tuple[str, str], dict[int, Row]] = {}
    for row in ROWS:
        cells.setdefault((row.case, row.module), {})[row.ranks] = row
    sizes = sorted({row.ranks for row in ROWS})
    widths = (
        max(len(module) for _, module in cells),
        max(len(case) for case, _ in cells),
    )
    heads = "".join(f"{f'P = {size}':>10}" for size in sizes)
    lines = [f"{'module':{widths[0]}}  {'input, network':{widths[1]}}{heads}{'allowed':>10}"]
    for (case, module), rows in cells.items():
        errors = "".join(
            f"{rows[size].error:10.1e}" if size in rows else " " * 10 for size in sizes
        )
        limit = max(row.allowed for row in rows.values())
        allowed = f"{limit:10.1e}" if limit < math.inf else f"{'reported':>10}"
        failed = "" if all(row.passes for row in rows.values()) else "  FAILED"
        lines.append(f"{module:{widths[0]}}  {case:{widths[1]}}{errors}{allowed}{failed}")
    num_failed = sum(not row.passes for row in ROWS)
    return "\n".join([*lines, f"{len(ROWS)} comparisons, {num_failed} failed", ""])


def relative(ours: Tensor, theirs: Tensor) -> float:
    """|ours - theirs| / |theirs|, Euclidean."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} is not {tuple(theirs.shape)}"
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def largest(ours: Tensor, theirs: Tensor) -> float:
    """The largest absolute difference; equal infinities count as equal."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} is not {tuple(theirs.shape)}"
    ours = ours.double()
    theirs = theirs.double()
    return (
        float(torch.where(ours == theirs, 0.0, (ours - theirs).abs()).max())
        if ours.numel()
        else 0.0
    )
