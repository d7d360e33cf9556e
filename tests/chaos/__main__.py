"""Schedules of faults on real runs: `python -m tests.chaos --seeds 0-99`.

Each schedule that fails is printed with the command that repeats it; its folder is kept.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from multiprocessing import active_children
from multiprocessing.util import Finalize
from pathlib import Path
from types import FrameType

import psutil

from foldcp.pipeline.execution.signals import adopt_orphans, kill_descendants
from tests.chaos.execute import Lane, Report, failed_report
from tests.chaos.launcher import FORK, preload
from tests.chaos.schedule import draw_schedule

_lanes: list[Lane] = []  # of this process: one


def main() -> None:
    """Run schedules, print a line for each, and exit with 1 if one failed."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=range(100), metavar="A-B,..")
    parser.add_argument("--lanes", type=int, default=3 * (os.cpu_count() or 1))
    options = parser.parse_args()
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="fc-"))  # short, as Ray's sockets are in it

    def abort(number: int, frame: FrameType | None) -> None:
        clean(folder)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, abort)
    adopt_orphans()
    preload()
    try:
        reports = list(run(options.seeds, options.lanes, folder))
    finally:
        clean(folder)
    seconds = time.monotonic() - started
    hits = Counter(kind for report in reports for kind in report.hits)
    print(", ".join(f"{kind} {count}" for kind, count in sorted(hits.items())))
    failed = sorted(report.schedule.seed for report in reports if report.complaints)
    print(f"{len(reports)} schedules, {sum(hits.values())} faults, {seconds:.0f} s")
    if failed:
        print(f"{len(failed)} failed: {', '.join(map(str, failed))}")
        sys.exit(1)


def run(seeds: Sequence[int], num_lanes: int, folder: Path) -> Iterator[Report]:
    """The reports of schedules, in the order in which they end."""
    executor = ProcessPoolExecutor(min(num_lanes, len(seeds)), FORK, _open_lane, (folder,))
    reference = executor.submit(_make_reference).result()
    ordered = sorted(seeds, key=_cluster)
    futures = {executor.submit(_execute, seed, reference): seed for seed in ordered}
    for future in _completed(futures):
        error = future.exception()
        report = failed_report(futures[future], error) if error else future.result()
        _print(report)
        yield report
    executor.shutdown()


def _cluster(seed: int) -> tuple[bool, int, int]:
    """What a schedule needs; those that need the same follow each other, as nodes start slowly.

    Among these the first are those that wait for deadlines, so that none of them is the last.
    """
    schedule = draw_schedule(seed)
    num_waits = sum(kind == "hang" or kind.startswith("freeze") for kind in schedule.kinds)
    return schedule.is_joined, -schedule.num_nodes, -num_waits


def _completed(futures: Iterable[Future[Report]]) -> Iterator[Future[Report]]:
    """Futures in the order in which they end; orphans are waited for meanwhile, as init does."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, 1.0, FIRST_COMPLETED)
        yield from done
        _reap_orphans()


def _reap_orphans() -> None:
    """Wait for the dead children that this process has not started.

    Ray's processes look whether their raylet is there, and a zombie is.
    """
    own = {process.pid for process in active_children()}
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, ChildProcessError):
            if process.pid not in own and process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)


def _open_lane(folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    logging.getLogger("ray").setLevel(logging.ERROR)
    lane = Lane(folder / str(os.getpid()))
    _lanes.append(lane)
    Finalize(None, lane.close, exitpriority=100)


def _make_reference() -> Path:
    (lane,) = _lanes
    return lane.reference()


def _execute(seed: int, reference: Path) -> Report:
    (lane,) = _lanes
    return lane.execute(draw_schedule(seed), reference)


def _print(report: Report) -> None:
    schedule = report.schedule
    state = "FAILED" if report.complaints else "ok"
    print(
        f"seed {schedule.seed}: {state}, {report.seconds:.1f} s, drawn {schedule.kinds}, "
        f"hit by {list(report.hits)}, exit codes {list(report.exit_codes)}",
        flush=True,
    )
    for complaint in report.complaints:
        print(f"    {complaint}")
    if report.complaints:
        print(f"    {report.folder}; again: make chaos SEED={schedule.seed}", flush=True)


def _seeds(text: str) -> Sequence[int]:
    """Numbers and ranges of them, as 3,10-19."""
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def clean(folder: Path) -> None:
    """End all processes, and keep of the folder what failed."""
    kill_descendants()
    for path in folder.iterdir():
        subprocess.run(["umount", "--lazy", path / "disk"], capture_output=True)
        if not path.name.startswith("failed"):
            shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):  # what failed is kept
        folder.rmdir()


if __name__ == "__main__":
    main()
