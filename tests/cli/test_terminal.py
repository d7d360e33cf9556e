"""A closed pipe, a full device or a closed descriptor ends no command; Ctrl-C ends it quietly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from foldcp import __main__
from foldcp.pipeline import cli

LOUD = """
import sys
from foldcp.pipeline.terminal import close_stdout, guard_streams
guard_streams()
for number in range(20_000):
    print("a line that nobody reads", file=sys.stderr, flush=True)
first = open(sys.argv[1], "w")
assert first.fileno() > 2, first.fileno()
first.write("the end")
first.close()
"""


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2>&- >&- <&-", "2>&1 | head -1"])
def test_guard_streams_survives_stderr_that_cannot_be_written(
    redirection: str, tmp_path: Path
) -> None:
    if "full" in redirection and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    program = tmp_path / "loud.py"
    file = tmp_path / "file"
    program.write_text(LOUD)
    command = f"'{sys.executable}' '{program}' '{file}' {redirection}"
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0
    assert file.read_text() == "the end"


def test_close_stdout_prints_no_traceback_when_the_reader_is_gone() -> None:
    command = (
        f"'{sys.executable}' -c 'from foldcp.pipeline.cli import main; main()' bench --help | true"
    )
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert result.stderr == ""


# SIGINT comes while the command line is imported.
INTERRUPTED = """
import os, signal, sys
class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == "foldcp.pipeline.cli":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupter())
from foldcp.__main__ import main
sys.argv = ["foldcp", "--version"]
main()
"""


def test_sigint_while_modules_are_imported_prints_nothing() -> None:
    result = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGINT, b"", b"")


def test_ignored_sigint_stays_ignored() -> None:
    program = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)" + INTERRUPTED
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(b"foldcp ")


def test_main_leaves_pythons_handler_of_sigint(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(cli, "main", lambda: handlers.append(signal.getsignal(signal.SIGINT)))
    try:
        __main__.main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert handlers == [signal.default_int_handler]


def test_main_leaves_a_handler_that_is_not_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a profiler, which was there before Python."""
    done = []
    monkeypatch.setattr(cli, "main", lambda: done.append(True))
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("the handler was replaced"))
    __main__.main()
    assert done


def test_the_command_foldcp_starts_there() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"foldcp": "foldcp.__main__:main"}
