"""A closed pipe, a full device or a closed descriptor never ends a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
