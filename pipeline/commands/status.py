"""The command `foldcp status`."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from foldcp.pipeline.execution.monitoring.run_status import (
    GroupStatus,
    RunStatus,
    read_status,
    to_json,
)
from foldcp.pipeline.storage.run_folder import is_being_written, read_run
from foldcp.pipeline.storage.tables import read_table
from foldcp.printable import printable

WATCH_SECONDS = 2.0
CLEAR = "\x1b[H\x1b[J"  # of a terminal: to the first line, and what follows is erased
NAME_WIDTH = 32


def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Print it again every two seconds, until it ends.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Print how far a run is, from any shell that sees its folder: complexes, GPUs, and what each
    worker group folds. The driver brings it up to date every two seconds.

    \b
    foldcp status RUN
    foldcp status RUN --watch
    foldcp status RUN --json
    """
    while True:
        read_run(run)  # which says so if it is not the folder of a run
        found = read_status(run)
        is_running = is_being_written(run)
        if as_json:
            text = _as_json(found, is_running)
        elif found is None:
            text = _without_status(run, is_running)
        else:
            text = _as_text(found, is_running)
        print(f"{CLEAR if watch and not as_json else ''}{text}", flush=True)
        if not (watch and is_running):
            return
        time.sleep(WATCH_SECONDS)


def _as_json(status: RunStatus | None, is_running: bool) -> str:
    content = json.loads(to_json(status)) if status else {}
    return json.dumps({"running": is_running, **content}, indent=1)


def _without_status(run: Path, is_running: bool) -> str:
    """The state of a run whose driver has written none: it has not folded yet, or was merged."""
    if is_running:
        return "reading its input, or not yet folding"
    last = read_table(run, "runs").to_pylist()[-1:]
    if not last or last[0]["num_done"] is None:
        return "nothing was folded"
    counts = [f"{last[0][f'num_{name}']:,} {name}" for name in ("done", "failed", "invalid")]
    merged_from = last[0]["merged_from"]
    origin = f"merged from {len(merged_from):,} runs" if merged_from else "not running"
    return f"{last[0]['run_id']}  {origin}\n{', '.join(counts)}"


def _as_text(status: RunStatus, is_running: bool) -> str:
    """The status for people."""
    unit = "GPU" if status.device == "cuda" else "rank"
    age = (datetime.now(UTC) - status.updated_at).total_seconds()
    state = f"running on {status.host}" if is_running else "not running"
    num_folding = sum(group.batch for group in status.groups if group.state == "folding")
    lines = [
        f"{status.run_id}  {state}, as of {_interval(age)} ago",
        f"{status.num_done:,} of {status.num_complexes:,} complexes done, {status.num_failed:,} "
        f"failed, {status.num_invalid:,} invalid, {num_folding:,} folding, "
        f"{status.num_waiting:,} waiting",
        f"{status.num_busy_gpus} of {status.num_gpus} {unit}s busy, {status.use:.0%} of their time "
        f"so far; {status.gpu_hours:,.2f} {unit}-hours spent, {status.gpu_hours_left:,.2f} left",
    ]
    if is_running:
        lines.append(f"about {_interval(status.seconds_left)} left")
    lines += [f"  failed ({count:,}): {reason}" for reason, count in status.failures.items()]
    if is_running and status.groups:
        lines += ["", *_group_lines(status.groups, unit)]
    return "\n".join(map(printable, lines))


def _group_lines(groups: tuple[GroupStatus, ...], unit: str) -> list[str]:
    """A line for each group, the largest first."""
    header = f"{'group':>5} {unit + 's':>5}  {'complex':<{NAME_WIDTH}} {'tokens':>7}  "
    lines = [f"{header}{'step':<20} {'time':>8} {'of about':>8}"]
    for group in sorted(groups, key=lambda group: (-group.num_gpus, group.group)):
        others = f" and {group.batch - 1} more" if group.batch > 1 else ""
        name = group.complex[: NAME_WIDTH - len(others)] + others
        step = group.state
        if group.stage:
            step = f"{group.stage} {group.step}/{group.num_steps}"
        predicted = _interval(group.predicted_seconds) if group.state == "folding" else ""
        lines.append(
            f"{group.group:>5} {group.num_gpus:>5}  {name:<{NAME_WIDTH}} {group.num_tokens:>7,}  "
            f"{step:<20} {_interval(group.seconds):>8} {predicted:>8}"
        )
    return lines


def _interval(seconds: float) -> str:
    return tqdm.format_interval(max(0.0, seconds))
