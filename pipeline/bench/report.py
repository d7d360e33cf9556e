"""What `foldcp bench` found, as a table for people, as JSON for programs, as a hardware file for
the cost model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from foldcp.config import BOLTZ2, UNTRAINED, Architecture
from foldcp.pipeline.bench.roofline import (
    TIGHT,
    BlockTime,
    FoldPlan,
    FoldTime,
    Machine,
    Measurement,
    NotMeasured,
    RooflineLimits,
    block_limit,
    fit,
    fold_limit,
    model_block,
    model_fold,
)
from foldcp.pipeline.scheduling.cost_model import Hardware

CEILINGS = (  # name of the field, what it is called, unit
    ("copy_bytes_per_s", "copy, read + write", "B/s"),
    ("flop_per_s", "matrix products in bf16", "flop/s"),
    ("flop_per_s_fp32", "matrix products in fp32", "flop/s"),
    ("exp_limit_per_s", "exponentials, limit", "/s"),
    ("exp_per_s", "exponentials, triangle attention", "/s"),
    ("launch_seconds", "launch of a small kernel", "s"),
    ("link_bytes_per_s", "received from other ranks", "B/s"),
)
PREFIXES = (
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "u"),
    (1e-9, "n"),
)


@dataclass(frozen=True)
class Report:
    """All findings on one machine, `date` as text."""

    machine: Machine
    plan: FoldPlan
    findings: Sequence[Measurement]
    date: str
    command: str

    @property
    def folded(self) -> Architecture:
        """The network of the predictions."""
        return UNTRAINED[self.plan.network.partition(":")[2]]

    @cached_property
    def fitted(self) -> tuple[Hardware, tuple[str, ...]]:
        """The hardware file's content, and which of its values were measured."""
        return fit(self.machine, BOLTZ2, self.folded, self.plan, self.findings)

    @property
    def ceilings(self) -> list[RooflineLimits]:
        return [f for f in self.findings if isinstance(f, RooflineLimits)]

    def blocks(self) -> list[dict[str, Any]]:
        """A row for each pair block: seconds, their limit and its fraction, bytes per pair, the
        fitted model.
        """
        rows = []
        for b in (f for f in self.findings if isinstance(f, BlockTime) and self.ceilings):
            limit = block_limit(BOLTZ2, b.num_tokens, b.num_ranks, b.precision, self.ceilings[0])
            model = model_block(self.fitted[0], BOLTZ2, b)
            derived = {
                "limit_seconds": limit,
                "fraction_of_limit": limit / b.seconds,
                "model_seconds": model,
            }
            rows.append(asdict(b) | derived)
        return rows

    def folds(self) -> list[dict[str, Any]]:
        """A row for each prediction, by stage where it says so."""
        rows = []
        for f in (f for f in self.findings if isinstance(f, FoldTime) and self.ceilings):
            limit = fold_limit(self.folded, self.plan, f, self.ceilings[0])
            derived = {
                "limit_seconds": limit,
                "fraction_of_limit": {stage: limit[stage] / f.seconds[stage] for stage in limit},
                "total_seconds": sum(f.seconds.values()),
                "total_fraction_of_limit": sum(limit.values()) / sum(f.seconds.values()),
                "model_seconds": model_fold(self.fitted[0], self.folded, self.plan, f),
            }
            rows.append(asdict(f) | derived)
        return rows


def to_dict(report: Report) -> dict[str, Any]:
    """Everything, in units of seconds, bytes and operations a second."""
    hardware, measured = report.fitted
    return {
        "date": report.date,
        "command": report.command,
        "machine": {
            key: value for key, value in asdict(report.machine).items() if key != "hardware"
        },
        "prediction": asdict(report.plan),
        "ceilings": [asdict(c) for c in report.ceilings],
        "blocks": report.blocks(),
        "predictions": report.folds(),
        "missing": [asdict(f) for f in report.findings if isinstance(f, NotMeasured)],
        "hardware": asdict(hardware),
        "hardware_measured": list(measured),
    }


def to_text(report: Report) -> str:
    """The tables."""
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    unit = f"{machine.num_devices} x " if machine.hardware.device == "cuda" else ""
    lines = [
        f"{unit}{machine.gpu}; {versions}; {report.date}; {report.command}",
        "",
        *_ceilings(report.ceilings),
    ]
    lines += ["", "pair blocks, widths of Boltz-2", *_blocks(report.blocks())]
    lines += ["", _what_is_predicted(report.plan), *_folds(report.folds())]
    if missing := [f for f in report.findings if isinstance(f, NotMeasured)]:
        lines += ["", *(f"not measured: {f.what}: {f.reason}" for f in missing)]
    lines += [
        "",
        "Limit of a block: the larger of its exponentials and its attention's matrix products, "
        "the triangles' matrix",
        "products, and the rest at the rate of copies; of a prediction: its blocks at their "
        "limit, and the matrix",
        "products of sampling. The model is what the hardware file written from these "
        "times predicts.",
    ]
    return "\n".join(lines)


def _ceilings(found: Sequence[RooflineLimits]) -> list[str]:
    lines = [f"{'ceilings':<34}" + "".join(f"{'ranks: ' + str(c.num_ranks):>16}" for c in found)]
    for name, words, unit in CEILINGS:
        values = [getattr(c, name) for c in found]
        if any(value is not None for value in values):
            cells = "".join(
                f"{'-' if value is None else _scaled(value, unit):>16}" for value in values
            )
            lines.append(f"{words:<34}{cells}")
    return lines


def _blocks(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        f"{'tokens':>8} {'ranks':>5} {'precision':<9} {'ms':>9} {'limit ms':>9} {'of limit':>8} "
        f"{'B/pair':>7} "
        f"{'model ms':>9}"
    ]
    lines += [
        f"{row['num_tokens']:>8,} {row['num_ranks']:>5} {row['precision']:<9} "
        f"{_short(1e3 * row['seconds']):>9} "
        f"{_short(1e3 * row['limit_seconds']):>9} {row['fraction_of_limit']:>8.1%} "
        f"{row['pair_bytes']:>7,.0f} "
        f"{_short(1e3 * row['model_seconds']):>9}"
        for row in rows
    ]
    return lines


def _what_is_predicted(plan: FoldPlan) -> str:
    return (
        f"predictions of {plan.network}: {plan.recycling + 1} trunk passes, {plan.steps} steps, "
        f"{plan.samples} samples, {plan.msa_rows:,} rows of alignment"
    )


def _folds(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        f"{'tokens':>8} {'ranks':>5} {'precision':<9} {'stage':<10} {'s':>9} {'limit s':>9} "
        f"{'of limit':>8} "
        f"{'peak GB':>7} {'model s':>9}"
    ]
    for row in rows:
        head = f"{row['num_tokens']:>8,} {row['num_ranks']:>5} {row['precision']:<9}"
        limit = row["limit_seconds"]
        seconds = row["seconds"]
        for stage in seconds:
            lines.append(
                f"{head} {stage:<10} {_short(seconds[stage]):>9} {_short(limit[stage]):>9} "
                f"{row['fraction_of_limit'][stage]:>8.1%} "
                f"{_short(row['peak_bytes'][stage] / 1e9):>7}"
            )
            head = " " * len(head)
        lines.append(
            f"{head} {'all':<10} {_short(row['total_seconds']):>9} "
            f"{_short(sum(limit.values())):>9} "
            f"{row['total_fraction_of_limit']:>8.1%} "
            f"{_short(max(row['peak_bytes'].values()) / 1e9):>7} "
            f"{_short(row['model_seconds']):>9}"
        )
    return lines


def _scaled(value: float, unit: str) -> str:
    """1.5e12, "B/s" -> 1.5 TB/s"""
    size, prefix = next((pair for pair in PREFIXES if value >= pair[0]), PREFIXES[-1])
    return f"{value / size:.3g} {prefix}{unit}"


def _short(value: float) -> str:
    """Three digits or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def to_yaml(report: Report) -> str:
    """The hardware file, as `foldcp.pipeline.scheduling.cost_model.load_hardware` reads it."""
    hardware, measured = report.fitted
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    sizes = sorted({f.num_tokens for f in report.findings if isinstance(f, BlockTime)})
    lines = [
        f"# {machine.gpu}, {report.date}, {versions}.",
        f"# Written by `{report.command}`, pair blocks of "
        f"{', '.join(map(str, sizes)) or 'no'} tokens.",
        f"# What is not marked as measured is the value used for {machine.hardware.name} before. "
        "The least memory per",
        f"# pair is measured by a prediction that takes more than {TIGHT:.0%} of its GPU, the "
        "link by several ranks.",
    ]
    for field in fields(Hardware):
        value = getattr(hardware, field.name)
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        if "e" in text and isinstance(value, float):  # YAML 1.1 reads no exponent without a point
            digits, exponent = text.split("e")
            text = f"{digits if '.' in digits else digits + '.0'}e{exponent}"
        if isinstance(value, str):
            text = f'"{value}"'
        lines.append(f"{field.name}: {text}" + ("  # measured" if field.name in measured else ""))
    return "\n".join(lines) + "\n"
