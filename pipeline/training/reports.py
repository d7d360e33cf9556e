"""Reports of a training run: a line on the terminal, the Parquet log, TensorBoard."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from foldcp.pipeline.storage.training.training_log import TrainingLog
from foldcp.training.loop.settings import LogSettings
from foldcp.training.loop.trainer import StepReport


@runtime_checkable
class SummaryWriter(Protocol):
    """What is used of TensorBoard's writer."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...
    def close(self) -> None: ...


class Reports:
    """All reports of a run, on its first rank."""

    def __init__(self, out: Path, settings: LogSettings, num_steps: int) -> None:
        self.settings = settings
        self.log = TrainingLog(out / "log", num_steps)
        self.tensorboard = _summary_writer(out / "tensorboard") if settings.tensorboard else None
        self.started = time.monotonic()
        self.recent: list[StepReport] = []

    def step(self, report: StepReport) -> None:
        """Report a step."""
        self.log.add(
            "steps",
            {
                "step": report.step,
                "time": datetime.now(UTC),
                "loss": report.loss,
                **report.parts,
                "gradient_norm": report.gradient_norm,
                "learning_rate": report.learning_rate,
                "tokens": report.num_tokens,
                "seconds": report.seconds,
                "peak_bytes": report.peak_bytes,
                "skipped": report.skipped,
            },
        )
        self.recent.append(report)
        if report.step % self.settings.every == 0:
            self._print()

    def _print(self) -> None:
        """A line with the means of the steps since the last one."""
        reports = self.recent
        last = reports[-1]
        seconds = sum(report.seconds for report in reports)
        means = {name: _mean([r.parts[name] for r in reports]) for name in last.parts}
        scalars = {
            "loss": _mean([report.loss for report in reports]),
            **means,
            "gradient norm": _mean([report.gradient_norm for report in reports]),
            "learning rate": last.learning_rate,
            "tokens per second": sum(report.num_tokens for report in reports) / seconds,
            "seconds per step": seconds / len(reports),
            "GB": last.peak_bytes / 1e9,
        }
        self._add_scalars("training", scalars, last.step)
        words = [f"{name} {value:.4g}" for name, value in scalars.items() if value]
        skipped = sum(report.skipped for report in reports)
        if skipped:
            words.append(f"SKIPPED {skipped}")
        minutes = (time.monotonic() - self.started) / 60
        print(f"{minutes:6.1f} min  step {last.step:,}: " + ", ".join(words), flush=True)
        reports.clear()

    def validated(self, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        """Report the structures of a validation, and their means by split."""
        for row in rows:
            self.log.add("validation", row)
        for split in sorted({row["split"] for row in rows}):
            of_split = [row for row in rows if row["split"] == split]
            means = {
                name: _mean(known)
                for name in ("lddt", "interface_lddt", "dockq", "irmsd", "tm_score", "plddt")
                if (known := [row[name] for row in of_split if row.get(name) is not None])
            }
            self._add_scalars(split, means, step)
            words = ", ".join(f"{name} {value:.3f}" for name, value in means.items())
            print(f"step {step:,}, {len(of_split)} {split} examples: {words}", flush=True)

    def checkpoint(self) -> None:
        """Write the log; its rows are then those before the checkpoint."""
        self.log.flush()

    def close(self) -> None:
        """Write what is left."""
        self.log.flush()
        if self.tensorboard is not None:
            self.tensorboard.close()

    def _add_scalars(self, group: str, scalars: Mapping[str, float], step: int) -> None:
        if self.tensorboard is not None:
            for name, value in scalars.items():
                self.tensorboard.add_scalar(f"{group}/{name}", value, step)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _summary_writer(folder: Path) -> SummaryWriter | None:
    """TensorBoard's writer, if the package is installed."""
    try:
        module = import_module("torch.utils.tensorboard")
    except ImportError:
        print("TensorBoard is not installed; its files are not written", file=sys.stderr)
        return None
    return module.SummaryWriter(str(folder))
