"""What all tests have in common: one thread, as their tensors are small."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

# Of this process, which has not imported torch yet, and of those that tests start.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Commands that are tested in this process change the number of threads."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
