"""Fuzzing of all readers for a moment, and of readers with known faults, which it must find."""

from __future__ import annotations

import csv
import random
import time
from pathlib import Path

import pytest

from foldcp.files import reading
from tests.fuzz import run
from tests.fuzz.mutate import mutated
from tests.fuzz.readers import READERS, Reader
from tests.fuzz.run import fuzz
from tests.fuzz.seeds import FASTA

COUNTS = {"features": 10}


@pytest.mark.parametrize("name", READERS)
def test_fuzzed_readers_raise_value_errors_only(name: str) -> None:
    tally = fuzz(READERS[name], seconds=60, seed=1, count=COUNTS.get(name, 120))
    assert [(finding.reason, finding.location) for finding in tally.findings] == []
    assert tally.num_read + tally.num_refused == COUNTS.get(name, 120)


@pytest.mark.parametrize("name", READERS)
def test_fuzz_inputs_are_valid_and_invalid(name: str) -> None:
    tally = fuzz(READERS[name], seconds=60, seed=2, count=COUNTS.get(name, 60))
    assert tally.num_read > 0
    assert tally.num_refused > 0


def test_fuzz_seed_gives_the_same_inputs() -> None:
    one, two, other = (
        [mutated(random.Random(seed), FASTA) for _ in range(5)] for seed in (1, 1, 2)
    )
    assert one == two != other


def _made(fail: object) -> Reader:
    assert callable(fail)
    return Reader("made", "x", lambda rng: bytes([rng.randrange(4)]), fail, (csv.Error,))


def _found(fail: object) -> list[str]:
    return [finding.reason for finding in fuzz(_made(fail), seconds=60, seed=0, count=40).findings]


def test_fuzz_finds_an_exception_other_than_value_error() -> None:
    def fail(path: Path) -> None:
        if path.read_bytes() == b"\x03":
            raise KeyError("here")

    assert _found(fail) == ["KeyError: 'here'"]


def test_fuzz_finds_a_fault_turned_into_a_value_error() -> None:
    def fail(path: Path) -> None:
        with reading("x"):
            [][path.read_bytes()[0]]

    assert _found(fail) == ["IndexError: list index out of range"]


def test_fuzz_finds_a_fault_behind_a_value_error() -> None:
    def fail(path: Path) -> None:
        try:
            {}[path.read_bytes()]
        except KeyError as error:
            raise ValueError("a file") from error

    assert [reason.partition(":")[0] for reason in _found(fail)] == ["KeyError"]


def test_fuzz_finds_an_error_that_names_no_file() -> None:
    def fail(path: Path) -> None:
        int(path.read_bytes() + b"x")

    assert len(_found(fail)) == 1


def test_fuzz_accepts_the_expected_exceptions_of_a_format() -> None:
    def fail(path: Path) -> None:
        with reading(str(path)):
            raise csv.Error("a quote")

    assert _found(fail) == []


def test_fuzz_finds_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LONGEST", 0.05)

    def fail(path: Path) -> None:
        time.sleep(5)

    [reason] = _found(fail)[:1]
    assert reason.startswith("HangError")
