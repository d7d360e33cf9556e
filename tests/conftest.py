"""What all tests have in common: threads, and which process runs which tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

# Tensors of tests are small: more threads would wait for one another. It holds for this process,
# which has not imported torch yet, and for those that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

RUN_FOLDERS = {"api", "chaos", "execution", "launching", "msa_search"}  # whose tests start runs


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Commands that run in this process change the number of threads."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For `pytest -n`: which process runs which tests, in the order of the collection."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        """A file is run by one process, as its tests share fixtures, and all that start runs by
        one, so that only one run goes on at a time.
        """

        def _split_scope(self, nodeid: str) -> str:
            return "runs" if starts_runs(nodeid) else nodeid.partition("::")[0]

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """For `pytest -n`: the tests that start runs come first, as they take longest."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not starts_runs(item.nodeid))


def starts_runs(nodeid: str) -> bool:
    """Whether a test is in one of the folders whose tests start runs."""
    return not RUN_FOLDERS.isdisjoint(nodeid.split("/")[:2])
