"""The smallest human complexes of CORUM under random kills, beside an undisturbed run.

`make chaos-corum CORUM=corum.tsv.gz SEQUENCES=human.fasta.gz`. Ranks, worker groups and drivers are
killed; each driver's command is given again until the run is over.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil

from foldcp.pipeline.execution.signals import adopt_orphans, kill_descendants
from tests.chaos.checks import TABLES, read
from tests.chaos.cluster import title, with_descendants
from tests.chaos.launcher import Launcher, preload

SETTINGS = (
    "msa.missing=single-sequence",
    "model.steps=2",
    "model.recycling=0",
    "run.cpu_ranks=2",
    "run.max_group=1",  # so that numbers are equal to the bit
    "run.deadline_floor=120",
    "run.start_deadline=120",
    "run.retries=20",  # kills are many: no complex is to fail for them
)
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL")


def main() -> None:
    """Run both, print figures, and exit with 1 if the tables differ."""
    parser = argparse.ArgumentParser(prog="make chaos-corum", description=__doc__)
    parser.add_argument("input", type=Path)
    parser.add_argument("sequences", type=Path)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=15.0, help="seconds between kills, about")
    options = parser.parse_args()
    adopt_orphans()
    preload()
    folder = Path(tempfile.mkdtemp(prefix="fc-"))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    is_right = False
    try:
        is_right = _compare(options, folder)
    finally:
        kill_descendants()
        if is_right:
            shutil.rmtree(folder)
        else:
            print(f"kept: {folder}")
    sys.exit(not is_right)


def _compare(options: argparse.Namespace, folder: Path) -> bool:
    """Whether the tables of a disturbed run are those of an undisturbed one."""
    launcher = Launcher(folder)
    arguments = [
        "score",
        str(options.input),
        "--sequences",
        str(options.sequences),
        "--organism",
        "Human",
        "--limit",
        str(options.limit),
        "--checkpoint",
        "untrained:tiny",
        *(part for setting in SETTINGS for part in ("--set", setting)),
    ]
    undisturbed = folder / "undisturbed"
    started = time.monotonic()
    pid = launcher.start([*arguments, "--out", str(undisturbed)], folder / "undisturbed.log", {})
    while (code := launcher.exit_code(pid)) is None:
        time.sleep(0.2)
    print(f"undisturbed: exit code {code}, {time.monotonic() - started:.0f} s", flush=True)
    disturbed = folder / "disturbed"
    started = time.monotonic()
    codes, hits = _disturb(launcher, [*arguments, "--out", str(disturbed)], folder, options)
    print(f"disturbed: exit codes {codes}, {time.monotonic() - started:.0f} s")
    print(", ".join(f"{kind} {count}" for kind, count in sorted(hits.items())))
    launcher.close()
    is_right = codes[-1] == code
    attempts = read(disturbed, "attempts")
    print("attempts:", dict(Counter(attempts["outcome"])))
    print("complexes:", dict(Counter(read(disturbed, "complexes")["outcome"])))
    for table in TABLES:
        left = read(disturbed, table)
        order = [name for name in ("name", "chain", "chain_a", "chain_b") if name in left]
        left = left.sort_values(order).reset_index(drop=True)
        right = read(undisturbed, table).sort_values(order).reset_index(drop=True)
        try:
            pd.testing.assert_frame_equal(left, right, check_exact=True)
        except AssertionError as error:
            print(f"{table}: {error}")
            is_right = False
        print(f"{table}: {len(left)} rows, {'equal' if left.equals(right) else 'other'}")
    return is_right


def _disturb(
    launcher: Launcher, arguments: list[str], folder: Path, options: argparse.Namespace
) -> tuple[list[int], Counter[str]]:
    """Give a command until its run is over; exit codes, and how often what was hit."""
    draw = random.Random(options.seed)
    codes: list[int] = []
    hits: Counter[str] = Counter()
    while not codes or codes[-1] not in (0, 1, 3):
        pid = launcher.start(arguments, folder / "disturbed.log", {})
        next_kill = time.monotonic() + draw.uniform(0.5, 1.5) * options.every
        while (code := launcher.exit_code(pid)) is None:
            time.sleep(0.1)
            if time.monotonic() > next_kill:
                kind = _hit(draw, psutil.Process(pid))
                hits[kind] += bool(kind)
                next_kill = time.monotonic() + draw.uniform(0.5, 1.5) * options.every
        codes.append(code)
        for _ in range(100):  # a killed driver's Ray ends by itself
            if len(with_descendants([psutil.Process()])) <= 2:
                break
            time.sleep(0.2)
    return codes, +hits


def _hit(draw: random.Random, driver: psutil.Process) -> str:
    """Kill a rank, a group or the driver; which, or nothing if there was none."""
    kind = draw.choice(("rank", "rank", "group", "driver"))
    if kind == "driver":
        name = draw.choice(SIGNALS)
        with suppress(psutil.NoSuchProcess):
            driver.send_signal(signal.Signals[name])
            return name
        return ""
    wanted = "WorkerActor" if kind == "rank" else "WorkerGroupActor"
    found = [process for process in with_descendants([driver]) if wanted in title(process)]
    if not found:
        return ""
    with suppress(psutil.NoSuchProcess):
        draw.choice(found).kill()
        return kind
    return ""


if __name__ == "__main__":
    main()
