"""Fixtures of the comparisons with programs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.parity.programs.scored_case import ScoredCase, generated
from tests.parity.programs.sources import UnavailableError, program_file

SCRIPTS = Path(__file__).parent / "scripts"
TIMEOUT = 300  # seconds, of a command
Run = Callable[..., str]


@pytest.fixture(scope="session")
def environment(pytestconfig: pytest.Config) -> Path:
    """The programs' environment."""
    return pytestconfig.getoption("--programs").absolute()


@pytest.fixture(scope="session")
def run(environment: Path) -> Run:
    """Runs a command of the environment; returns what it prints, and fails where it fails."""

    def run(*command: str | Path) -> str:
        program, *arguments = map(str, command)
        done = subprocess.run(
            [str(environment / "bin" / program), *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


@pytest.fixture(scope="session")
def source(environment: Path) -> Callable[[str], Path]:
    """The file of SOURCES; skips the test where it cannot be had."""

    def find(name: str) -> Path:
        try:
            return program_file(name, environment / "sources")
        except UnavailableError as error:
            pytest.skip(str(error))

    return find


@pytest.fixture(scope="session")
def cases() -> list[ScoredCase]:
    """The generated cases, with their scores."""
    return list(generated())


@pytest.fixture(scope="session")
def folders(cases: list[ScoredCase], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A folder of Boltz's files of each case."""
    root = tmp_path_factory.mktemp("boltz")
    return [case.write(root / case.name) for case in cases]
