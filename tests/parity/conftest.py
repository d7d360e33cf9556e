"""Fixtures of the parity tests, which run with `--oracle FOLDER` (results of Boltz), those in
`programs/` with `--programs ENVIRONMENT`, and print their table at the end.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.parity.support.oracle import Oracle
from tests.parity.support.table import ROWS, render


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--oracle", type=Path, help="what reference/main.py wrote")
    parser.addoption("--programs", type=Path, help="environment in which programs/run.sh runs them")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    option = "--programs" if collection_path.parent.name == "programs" else "--oracle"
    is_test = collection_path.name.startswith("test_")
    return True if is_test and not config.getoption(option, None) else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if ROWS:
        terminalreporter.section("parity with Boltz 2.2.1 and the programs of other scores")
        terminalreporter.write(render())


@pytest.fixture(scope="session")
def oracle(pytestconfig: pytest.Config) -> Oracle:
    torch.set_num_threads(1)  # as on each of many ranks
    return Oracle(pytestconfig.getoption("--oracle"))
