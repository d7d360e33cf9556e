"""External programs: their errors, and their end."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from foldcp.pipeline.msa_search.programs import (
    ProgramError,
    Programs,
    StoppedError,
    find_program,
    running_programs,
)
from tests.support.runs import has_ended, is_running


def test_errors_have_the_end_of_what_a_program_says() -> None:
    assert Programs().run(["echo", "a"]) == "a\n"
    with pytest.raises(ProgramError, match="sh -c: ended with code 3: first line last"):
        Programs().run(["sh", "-c", "echo 'first\n line'; echo last; exit 3"])
    with pytest.raises(ProgramError, match=r"sh -c: ended with code 1: reason$"):
        Programs().run(["sh", "-c", "echo noise; echo reason >&2; exit 1"])
    with pytest.raises(ProgramError, match=r"ended by signal 9 \(Killed\)"):
        Programs().run(["sh", "-c", "kill -9 $$"])
    with pytest.raises(ValueError, match="no-such-program: not found on this machine's PATH"):
        find_program("no-such-program")


def wait_for(path: Path) -> int:
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(path.read_text())


def test_stop_ends_what_a_program_has_started(tmp_path: Path) -> None:
    programs = Programs()
    pid = tmp_path / "pid"
    errors: list[str] = []

    def run() -> None:
        try:
            programs.run(["sh", "-c", f"sleep 600 & echo $! > {pid}; wait"])
        except ProgramError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    child = wait_for(pid)
    assert is_running(child)
    programs.stop()
    thread.join(30)
    assert "ended by signal 9" in errors[0]
    assert has_ended(child)
    with pytest.raises(ProgramError, match="echo: stopped"):
        programs.run(["echo"])


def test_a_signal_ends_programs_and_handlers_come_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    pid = tmp_path / "pid"
    timer = threading.Timer(0.0, lambda: (wait_for(pid), os.kill(os.getpid(), signal.SIGTERM)))
    timer.start()
    with pytest.raises(StoppedError) as error, running_programs() as programs:
        programs.run(["sh", "-c", f"sleep 600 & echo $! > {pid}; wait"])
    timer.join()
    assert error.value.number == signal.SIGTERM
    assert has_ended(int(pid.read_text()))
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_does_not_interrupt_the_wait_is_seen_too(tmp_path: Path) -> None:
    """As one that comes just before the wait begins: here another thread gets it."""
    pid = tmp_path / "pid"

    def signal_to_this_thread() -> None:
        wait_for(pid)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    thread = threading.Thread(target=signal_to_this_thread)
    thread.start()
    ended = tmp_path / "ended"
    with pytest.raises(StoppedError), running_programs() as programs:
        programs.run(["sh", "-c", f"echo $$ > {pid}; sleep 40; echo > {ended}"])
    thread.join()
    assert has_ended(int(pid.read_text()))
    assert not ended.exists(), "it was not killed"
