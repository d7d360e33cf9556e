"""Signals that stop a run.

They are recorded and end nothing by themselves; a stopped process always ends, with all its
descendants.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from foldcp.pipeline.execution.signals import STOP_SIGNALS, StopSignals


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.01)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_stop_signals_records_the_first_signal(number: signal.Signals) -> None:
    before = [signal.getsignal(other) for other in STOP_SIGNALS]
    with StopSignals() as signals:
        assert signals.number == 0
        os.kill(os.getpid(), number)
        wait_for(lambda: signals.number)
        for other in STOP_SIGNALS:
            os.kill(os.getpid(), other)
        time.sleep(0.05)
        assert signals.number == number
    assert [signal.getsignal(other) for other in STOP_SIGNALS] == before


def test_install_replaces_the_handlers_of_a_library() -> None:
    with StopSignals() as signals:
        signal.signal(
            signal.SIGTERM,
            lambda number, frame: pytest.fail("the library's handler ran"),
        )
        signals.install()
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: signals.number)


def test_stop_signals_keeps_ignored_signals_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.1)
            assert signals.number == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_stop_signals_changes_nothing_outside_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def other() -> None:
        with StopSignals() as signals:
            seen.append((signals.number, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [(0, before)]


# A child that starts a grandchild, which starts another one; the middle one dies, and the last one
# ignores SIGTERM.
FAMILY = """
import os, signal, subprocess, sys, time
from foldcp.pipeline.execution.signals import StopSignals, adopt_orphans, end_process
adopt_orphans()
last = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
last += "print('up', flush=True); time.sleep(600)"
middle = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {last!r}], "
middle += "start_new_session=True, stdout=subprocess.PIPE); p.stdout.readline()"
subprocess.run([sys.executable, "-c", middle + "; print(p.pid, flush=True)"], check=True)
"""


@contextmanager
def family(rest: str) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """A process that runs FAMILY and then `rest`, and its last descendant."""
    command = [sys.executable, "-c", FAMILY + rest]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, psutil.Process(int(process.stdout.readline()))
        finally:
            process.kill()


def ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt its orphans")
def test_end_process_kills_all_descendants_and_returns_its_code() -> None:
    with family("end_process(41)") as (process, orphan):
        assert process.wait(60) == 41
        wait_for(lambda: ended(orphan))


# Two children, each with a child of its own; the first is spared.
SPARED = """
import subprocess, sys, psutil
from foldcp.pipeline.execution.signals import kill_descendants
parent = "import subprocess, sys, time; "
parent += "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
parent += "print(p.pid, flush=True); time.sleep(600)"
pids = []
for _ in range(2):
    child = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    pids += [child.pid, int(child.stdout.readline())]
processes = [psutil.Process(pid) for pid in pids]
kill_descendants(spared=[processes[0]])
dead = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)  # for which their parent may not have waited yet
print([x.is_running() and x.status() not in dead for x in processes])
kill_descendants()
"""


def test_kill_descendants_spares_those_it_is_given_and_theirs() -> None:
    command = [sys.executable, "-c", SPARED]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    alive = process.stdout.strip()
    assert alive == "[True, True, False, False]", process.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt its orphans")
def test_stop_signals_ends_a_process_whose_main_thread_is_busy() -> None:
    busy = """
with StopSignals(seconds=0.5):
    print("waiting", flush=True)
    while True:
        time.sleep(600)
"""
    with family(busy) as (process, orphan):
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        wait_for(lambda: ended(orphan))


# The raylet of a driver is killed, and nobody waits for it.
KILLED = """
import time, psutil, ray
from foldcp.pipeline.execution.monitoring.progress_actor import FoldProgress
from foldcp.pipeline.execution.ray_cluster import RayConnection
from foldcp.pipeline.execution.signals import end_process
connection = RayConnection("", 1, False)
connection.wait()
progress = FoldProgress()
ray.get(progress.actor.steps.remote())
descendants = psutil.Process().children(recursive=True)
(actor,) = [x for x in descendants if x.cmdline()[:1] == ["ray::ProgressActor"]]
(raylet,) = [x for x in descendants if x.name() == "raylet"]
raylet.kill()
end = time.monotonic() + 20
while actor.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
    time.sleep(0.05)
print(raylet.status(), actor.status(), flush=True)
end_process(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_actors_end_with_a_raylet_that_nobody_waits_for() -> None:
    command = [sys.executable, "-c", KILLED]
    process = subprocess.run(command, capture_output=True, text=True, timeout=240)
    # Ray may say, too, that the raylet has ended.
    assert "zombie zombie" in process.stdout.splitlines(), process.stdout + process.stderr
