"""A fuzzing run: many inputs for one reader, and its findings."""

from __future__ import annotations

import random
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from foldcp import files
from foldcp.complex import Complex, InvalidComplex
from tests.fuzz.readers import Reader

ROOT = Path(files.__file__).resolve().parents[1]
LONGEST = 10.0  # seconds that a reader may take for an input
MOST_FINDINGS = 5  # different ones; then the run ends


class HangError(BaseException):
    """A reader took too long; nothing in the reader catches it."""


@dataclass(frozen=True)
class Finding:
    """An input and what it did to its reader."""

    data: bytes
    reason: str
    location: str


@dataclass
class Tally:
    """Counts of accepted and refused inputs, and the findings."""

    reader: str
    num_read: int = 0  # were read, perhaps as invalid records
    num_complexes: int = 0  # in them
    num_refused: int = 0  # ended in a ValueError
    seconds: float = 0.0
    slowest: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def line(self) -> str:
        """The tally in a line."""
        total = self.num_read + self.num_refused
        return (
            f"{self.reader:14}{total:>9,} inputs in {self.seconds:5.0f} s: {self.num_read:,} read "
            f"({self.num_complexes:,} complexes), {self.num_refused:,} refused, slowest "
            f"{self.slowest:.2f} s, "
            f"{len(self.findings)} findings"
        )


def fuzz(reader: Reader, seconds: float, seed: int, count: int = 0) -> Tally:
    """Feed a reader for so many seconds, with at most `count` inputs; the same seed gives the
    same inputs.
    """
    rng = random.Random(f"{reader.name} {seed}")
    tally = Tally(reader.name)
    seen = set()
    began = time.monotonic()
    with prepared(reader) as path:
        while time.monotonic() - began < seconds and not (
            count and tally.num_read + tally.num_refused >= count
        ):
            data = reader.make(rng)
            path.write_bytes(data)
            finding = try_input(reader, path, data, tally)
            if finding and finding.location not in seen:
                seen.add(finding.location)
                tally.findings.append(finding)
                if len(tally.findings) == MOST_FINDINGS:
                    break
    tally.seconds = time.monotonic() - began
    return tally


def try_input(reader: Reader, path: Path, data: bytes, tally: Tally) -> Finding | None:
    """Read one input; what it should not have done."""
    began = time.monotonic()
    try:
        with _time_limit():
            found = reader.run(path)
        tally.num_read += 1
        if isinstance(found, list):
            _check_records(found)
            tally.num_complexes += sum(isinstance(record, Complex) for record in found)
    except reader.refusal as error:
        tally.num_refused += 1
        origin = _origin(error)
        # RecursionError is a RuntimeError, which some libraries raise, but always a fault of ours.
        expected = isinstance(origin, reader.expected) and not isinstance(origin, RecursionError)
        if not _is_ours(error, reader) or not (expected or _is_ours(origin, reader)):
            return _finding(data, origin)
        if problem := _message_problem(error, reader, path):
            return _finding(data, error, problem)
    except (Exception, HangError) as error:
        tally.num_refused += 1
        return _finding(data, error)
    finally:
        tally.slowest = max(tally.slowest, time.monotonic() - began)
    return None


def _check_records(records: list[object]) -> None:
    """Raise AssertionError for a record that tables cannot hold."""
    for record in records:
        if isinstance(record, Complex | InvalidComplex):
            texts = [record.name, record.title, record.organism, record.source, *record.notes]
            assert record.name and "\n" not in record.name, record
            assert "".join(texts).encode(), record
        if isinstance(record, InvalidComplex):
            assert record.reason and "\n" not in record.reason, record
            assert record.reason.encode(), record


def _origin(error: BaseException) -> BaseException:
    """The first of the exceptions that were raised from one another."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _message_problem(error: BaseException, reader: Reader, path: Path) -> str:
    """What is wrong with the message of a refusal: not a line that names the file, its complex,
    or a file beside it.
    """
    message = str(error)
    if "\n" in message or "\r" in message:
        return "more than a line"
    names = (path.name, f"complex {path.stem}", *reader.others)
    if reader.refusal is ValueError and not any(name in message for name in names):
        return "names no file"
    return ""


def _is_ours(error: BaseException, reader: Reader) -> bool:
    """Whether our code raised it as a refusal: a library's says nothing of file or value."""
    if not isinstance(error, reader.refusal):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename).is_relative_to(ROOT) and (last.line or "").startswith("raise")


def _finding(data: bytes, error: BaseException, problem: str = "") -> Finding:
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    location = "\n".join(f"  {frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    reason = f"{type(error).__name__}: {str(error)[:200]}"
    return Finding(data, f"{problem}: {reason}" if problem else reason, location)


@contextmanager
def prepared(reader: Reader) -> Iterator[Path]:
    """The path of a reader's input, in a folder with the files beside it."""
    memory = Path("/dev/shm")  # a disk would set the pace
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
        _narrowed(reader),
    ):
        for name, data in reader.others.items():
            (Path(folder) / name).write_bytes(data)
        yield Path(folder) / reader.file


@contextmanager
def _narrowed(reader: Reader) -> Iterator[None]:
    """Only the expected exceptions become ValueErrors: one of our own mistakes, turned into the
    reason of a row, would look like a bad input.
    """
    before = files.INPUT_ERRORS
    files.INPUT_ERRORS = tuple(error for error in reader.expected if issubclass(error, before))
    try:
        yield
    finally:
        files.INPUT_ERRORS = before


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise HangError(f"no answer in {LONGEST:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
