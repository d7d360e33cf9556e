"""What all tests have in common: threads, signals, and which process runs which tests."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

# Tensors of tests are small: more threads would wait for one another. It holds for this process,
# which has not imported torch yet, and for those that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

TIMED_FOLDERS = {"chaos", "execution"}  # of runs that must fold, start or stop in time


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Commands that run in this process change the number of threads."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _hangup_is_not_ignored() -> Iterator[None]:
    """Under nohup it is, and the runs of tests would ignore it as well."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For `pytest -n`: which process runs which tests, in the order of the collection."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        """A file is run by one process, as its tests share fixtures; the runs that must do
        something in time are all started by one, as they would take time from one another.
        """

        def _split_scope(self, nodeid: str) -> str:
            return "timed" if is_timed(nodeid) else nodeid.partition("::")[0]

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """For `pytest -n`: the timed runs come first, as they take half of the time."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not is_timed(item.nodeid))


def is_timed(nodeid: str) -> bool:
    """Whether a test is in one of the folders of timed runs."""
    return not TIMED_FOLDERS.isdisjoint(nodeid.split("/")[:2])
