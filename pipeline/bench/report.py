"""The report of `foldcp bench`.

Tables for people, JSON for programs, and a hardware file for the cost model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from foldcp.config import BOLTZ2, UNTRAINED, Architecture
from foldcp.pipeline.bench.fit import (
    MIN_MEMORY_SHARE,
    FittedHardware,
    fit_hardware,
    model_block,
    model_fold,
)
from foldcp.pipeline.bench.measurements import (
    GROUP_MSA_ROWS,
    BlockTime,
    FoldPlan,
    FoldTime,
    Machine,
    Measurement,
    NotMeasured,
    PeerTime,
    RooflineLimits,
    Throughput,
)
from foldcp.pipeline.bench.roofline import block_limit, fold_limit
from foldcp.pipeline.scheduling.hardware import Hardware

LIMITS = (  # field of RooflineLimits, its name in the table, unit
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
EXPLANATION = """\
Limit of a block: the larger of its exponentials and its attention's matrix products, the triangles'
matrix products, and the rest at the rate of copies; of a prediction: its blocks at their limit, and
the matrix products of sampling. The model is what the hardware file written from these times
predicts."""


@dataclass(frozen=True)
class BenchReport:
    """All measurements of one machine, `date` as text."""

    machine: Machine
    plan: FoldPlan
    measurements: Sequence[Measurement]
    date: str
    command: str

    @property
    def fold_net(self) -> Architecture:
        """The network of the predictions."""
        return UNTRAINED[self.plan.network.partition(":")[2]]

    @cached_property
    def fitted(self) -> FittedHardware:
        """The hardware file's content."""
        return fit_hardware(self.machine, BOLTZ2, self.fold_net, self.plan, self.measurements)

    @property
    def limits(self) -> list[RooflineLimits]:
        """The limits on each number of ranks."""
        return [each for each in self.measurements if isinstance(each, RooflineLimits)]

    @property
    def not_measured(self) -> list[NotMeasured]:
        """The measurements that failed."""
        return [each for each in self.measurements if isinstance(each, NotMeasured)]

    def blocks(self) -> list[dict[str, Any]]:
        """A row for each pair block; none without limits.

        Seconds, their limit and its fraction, bytes per pair, the fitted model.
        """
        blocks = [each for each in self.measurements if isinstance(each, BlockTime)]
        rows: list[dict[str, Any]] = []
        for block in blocks if self.limits else []:
            limit = block_limit(
                BOLTZ2,
                block.num_tokens,
                block.num_ranks,
                block.precision,
                self.limits[0],
            )
            derived = {
                "limit_seconds": limit,
                "fraction_of_limit": limit / block.seconds,
                "model_seconds": model_block(self.fitted.hardware, BOLTZ2, block),
            }
            rows.append(asdict(block) | derived)
        return rows

    def folds(self) -> list[dict[str, Any]]:
        """A row for each prediction, with values by stage and in total. None without limits."""
        folds = [each for each in self.measurements if isinstance(each, FoldTime)]
        rows: list[dict[str, Any]] = []
        for fold in folds if self.limits else []:
            limit = fold_limit(self.fold_net, self.plan, fold, self.limits[0])
            total_seconds = sum(fold.seconds.values())
            derived = {
                "limit_seconds": limit,
                "fraction_of_limit": {stage: limit[stage] / fold.seconds[stage] for stage in limit},
                "total_seconds": total_seconds,
                "total_fraction_of_limit": sum(limit.values()) / total_seconds,
                "model_seconds": model_fold(self.fitted.hardware, self.fold_net, self.plan, fold),
            }
            rows.append(asdict(fold) | derived)
        return rows

    def throughputs(self) -> list[dict[str, Any]]:
        """A row for each size of complexes that were folded alone and together."""
        return [
            asdict(each)
            | {
                "alone_per_hour": 3600 / each.alone_seconds,
                "group_per_hour": 3600 / each.group_seconds,
            }
            for each in self.measurements
            if isinstance(each, Throughput)
        ]

    def beside(self) -> list[dict[str, Any]]:
        """A row for each prediction by another engine, with foldcp's seconds on one device and how
        many times as long the other took, by precision.
        """
        rows: list[dict[str, Any]] = []
        for peer in self.measurements:
            if isinstance(peer, PeerTime):
                own = {
                    fold.precision: sum(fold.seconds.values())
                    for fold in self.measurements
                    if isinstance(fold, FoldTime)
                    and (fold.num_tokens, fold.num_ranks) == (peer.num_tokens, 1)
                }
                ratios = {precision: peer.seconds / seconds for precision, seconds in own.items()}
                rows.append(asdict(peer) | {"foldcp_seconds": own, "ratio": ratios})
        return rows


def to_dict(report: BenchReport) -> dict[str, Any]:
    """The whole report, in seconds, bytes and operations per second."""
    machine = asdict(report.machine)
    del machine["hardware"]
    return {
        "date": report.date,
        "command": report.command,
        "machine": machine,
        "prediction": asdict(report.plan),
        "limits": [asdict(each) for each in report.limits],
        "blocks": report.blocks(),
        "predictions": report.folds(),
        "throughput": report.throughputs(),
        "beside": report.beside(),
        "missing": [asdict(each) for each in report.not_measured],
        "hardware": asdict(report.fitted.hardware),
        "hardware_measured": list(report.fitted.measured),
    }


def to_text(report: BenchReport) -> str:
    """The report as tables."""
    machine = report.machine
    number = f"{machine.num_devices} x " if machine.hardware.device == "cuda" else ""
    plan = report.plan
    lines = [
        f"{number}{machine.gpu}; {_versions(machine)}; {report.date}; {report.command}",
        "",
        *_limits_table(report.limits),
        "",
        "pair blocks, widths of Boltz-2",
        *_blocks_table(report.blocks()),
        "",
        f"predictions of {plan.network}: {plan.recycling + 1} trunk passes, {plan.steps} steps, "
        f"{plan.samples} samples, {plan.msa_rows:,} rows of alignment",
        *_folds_table(report.folds()),
        "",
    ]
    if throughputs := report.throughputs():
        lines += [
            "complexes an hour on one device, 1 sample, at most "
            f"{GROUP_MSA_ROWS:,} rows of alignment",
            *_throughput_table(throughputs),
            "",
        ]
    if beside := report.beside():
        lines += [
            "the same predictions by other engines, each in a process of its own, warmed up",
            *_beside_table(beside),
            "",
        ]
    if report.not_measured:
        lines += [f"not measured: {each.what}: {each.reason}" for each in report.not_measured]
        lines.append("")
    return "\n".join([*lines, EXPLANATION])


def _versions(machine: Machine) -> str:
    return ", ".join(f"{library} {version}" for library, version in machine.versions.items())


def _limits_table(limits: Sequence[RooflineLimits]) -> list[str]:
    heads = [f"{'ranks: ' + str(each.num_ranks):>16}" for each in limits]
    lines = [f"{'limits':<34}{''.join(heads)}"]
    for field, name, unit in LIMITS:
        values = [getattr(each, field) for each in limits]
        if any(value is not None for value in values):
            texts = ["-" if value is None else _with_prefix(value, unit) for value in values]
            cells = "".join(f"{text:>16}" for text in texts)
            lines.append(f"{name:<34}{cells}")
    return lines


def _blocks_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        f"{'tokens':>8} {'ranks':>5} {'precision':<9} {'ms':>9} {'limit ms':>9} {'of limit':>8} "
        f"{'B/pair':>7} {'model ms':>9}"
    ]
    for row in rows:
        lines.append(
            f"{_row_head(row)} {_short(1e3 * row['seconds']):>9} "
            f"{_short(1e3 * row['limit_seconds']):>9} {row['fraction_of_limit']:>8.1%} "
            f"{row['pair_bytes']:>7,.0f} {_short(1e3 * row['model_seconds']):>9}"
        )
    return lines


def _folds_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        f"{'tokens':>8} {'ranks':>5} {'precision':<9} {'stage':<10} {'s':>9} {'limit s':>9} "
        f"{'of limit':>8} {'peak GB':>7} {'model s':>9}"
    ]
    for row in rows:
        head = _row_head(row)
        limit = row["limit_seconds"]
        peak_gb = {stage: peak / 1e9 for stage, peak in row["peak_bytes"].items()}
        for stage, seconds in row["seconds"].items():
            lines.append(
                f"{head} {stage:<10} {_short(seconds):>9} {_short(limit[stage]):>9} "
                f"{row['fraction_of_limit'][stage]:>8.1%} {_short(peak_gb[stage]):>7}"
            )
            head = " " * len(head)
        lines.append(
            f"{head} {'all':<10} {_short(row['total_seconds']):>9} "
            f"{_short(sum(limit.values())):>9} {row['total_fraction_of_limit']:>8.1%} "
            f"{_short(max(peak_gb.values())):>7} {_short(row['model_seconds']):>9}"
        )
    return lines


def _throughput_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        f"{'tokens':>8} {'precision':<9} {'alone':>9} {'together':>9} {'of each group':>13} "
        f"{'peak GB':>7}"
    ]
    for row in rows:
        lines.append(
            f"{row['num_tokens']:>8,} {row['precision']:<9} {row['alone_per_hour']:>9,.0f} "
            f"{row['group_per_hour']:>9,.0f} {row['group_size']:>13} "
            f"{_short(row['peak_bytes'] / 1e9):>7}"
        )
    return lines


def _beside_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [f"{'tokens':>8} {'engine':<10} {'s':>9} {'peak GB':>7}  foldcp, times as fast"]
    for row in rows:
        ratios = [
            f"{precision} {_short(row['foldcp_seconds'][precision])} s, {ratio:.2f}"
            for precision, ratio in row["ratio"].items()
        ]
        lines.append(
            f"{row['num_tokens']:>8,} {row['engine']:<10} {_short(row['seconds']):>9} "
            f"{_short(row['peak_bytes'] / 1e9):>7}  {'; '.join(ratios) or 'not measured'}"
        )
    return lines


def _row_head(row: dict[str, Any]) -> str:
    return f"{row['num_tokens']:>8,} {row['num_ranks']:>5} {row['precision']:<9}"


def _with_prefix(value: float, unit: str) -> str:
    """1.5e12, "B/s" -> 1.5 TB/s"""
    candidates = [(size, prefix) for size, prefix in PREFIXES if value >= size]
    size, prefix = candidates[0] if candidates else PREFIXES[-1]
    return f"{value / size:.3g} {prefix}{unit}"


def _short(value: float) -> str:
    """Three digits, or all before the decimal point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def to_yaml(report: BenchReport) -> str:
    """The hardware file, as `load_hardware` reads it."""
    machine = report.machine
    fitted = report.fitted
    sizes = sorted({each.num_tokens for each in report.measurements if isinstance(each, BlockTime)})
    lines = [
        f"# {machine.gpu}, {report.date}, {_versions(machine)}.",
        f"# Written by `{report.command}`, pair blocks of "
        f"{', '.join(map(str, sizes)) or 'no'} tokens.",
        f"# What is not marked as measured is the value used for {machine.hardware.name} before. "
        "The least memory per",
        f"# pair is measured by a prediction that takes more than {MIN_MEMORY_SHARE:.0%} of its "
        "GPU, the link by several ranks.",
    ]
    for field in fields(Hardware):
        mark = "  # measured" if field.name in fitted.measured else ""
        value = _yaml_value(getattr(fitted.hardware, field.name))
        lines.append(f"{field.name}: {value}{mark}")
    return "\n".join(lines) + "\n"


def _yaml_value(value: str | float | tuple[str, ...]) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, int):
        return str(value)
    text = f"{value:.4g}"
    if "e" in text:  # YAML 1.1 reads no exponent without a decimal point
        digits, exponent = text.split("e")
        text = f"{digits if '.' in digits else digits + '.0'}e{exponent}"
    return text
