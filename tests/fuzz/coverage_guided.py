"""Fuzzing of readers by coverage, with atheris (`pip install atheris`, not among our own needs).

    nice python -m tests.fuzz.coverage_guided READER --count 1000000 --seconds 600
    nice python -m tests.fuzz.coverage_guided all

The valid inputs of `tests/fuzz/seeds.py` are where it begins; the words in them and the tokens of
`tests/fuzz/mutate.py` are its dictionary; half of the mutations are libFuzzer's, half our own. It
tells every input that is a finding as `python -m tests.fuzz` does, and goes on to the next. Exit
code 1 if there was one.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

# The modules whose branches guide it, which must not have been imported before.
with atheris.instrument_imports(include=["foldcp", "tarfile", "gzip", "zipfile"]):
    from tests.fuzz.mutate import MUTATIONS, TOKENS
    from tests.fuzz.readers import READERS, Damaged, Reader
    from tests.fuzz.run import Tally, prepared, try_input

LONGEST_INPUT = 20_000  # bytes, unless a seed is longer
LONGEST_WORD = 64  # bytes, of the dictionary
MOST_FINDINGS = 20  # different ones; then the run ends
MEMORY_MB = 4_000


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.coverage_guided", description=__doc__
    )
    known = [name for name, reader in READERS.items() if isinstance(reader.make, Damaged)]
    parser.add_argument("reader", choices=[*known, "all"])
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs of a reader")
    parser.add_argument("--seconds", type=float, default=3_600, help="at most, for a reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    options = parser.parse_args()
    if options.reader == "all":
        return _fuzz_all(known, sys.argv[1:])
    _fuzz(READERS[options.reader], options)
    return 1  # libFuzzer ended it, not we


def _fuzz_all(names: list[str], arguments: list[str]) -> int:
    """Fuzz one reader after the other, each in a process of its own, which libFuzzer ends."""
    codes = []
    for name in names:
        own = [name if argument == "all" else argument for argument in arguments]
        command = [sys.executable, "-m", "tests.fuzz.coverage_guided", *own]
        codes.append(subprocess.run(command).returncode)
        if codes[-1]:
            print(f"{name}: exit code {codes[-1]}", flush=True)
    return int(any(codes))


def _fuzz(reader: Reader, options: argparse.Namespace) -> None:
    warnings.simplefilter("error")
    damaged = reader.make
    assert isinstance(damaged, Damaged)
    with prepared(reader) as path, tempfile.TemporaryDirectory() as folder:
        run = _Run(reader, damaged, path, options.count, options.seconds, options.keep)
        arguments = _arguments(Path(folder), damaged, options.seed)
        atheris.Setup(arguments, run.one_input, custom_mutator=_mutator(damaged))
        atheris.Fuzz()


class _Run:
    """The inputs so far; the process ends with the last of them, as libFuzzer returns to nobody."""

    def __init__(
        self,
        reader: Reader,
        damaged: Damaged,
        path: Path,
        count: int,
        seconds: float,
        keep: Path,
    ) -> None:
        self.reader = reader
        self.pack = damaged.pack
        self.path = path
        self.count = count
        self.seconds = seconds
        self.keep = keep
        self.tally = Tally(reader.name)
        self.seen: set[str] = set()
        self.began = time.monotonic()

    def one_input(self, raw: bytes) -> None:
        """Feed the reader; end the process after the last input."""
        tally = self.tally
        data = self.pack(raw)
        self.path.write_bytes(data)
        finding = try_input(self.reader, self.path, data, tally)
        if finding and finding.location not in self.seen:
            self.seen.add(finding.location)
            tally.findings.append(finding)
            self.keep.mkdir(exist_ok=True)
            name = f"{self.reader.name}-guided-{len(tally.findings)}-{self.reader.file}"
            (self.keep / name).write_bytes(data)
            print(f"{self.keep / name}: {finding.reason}\n{finding.location}", flush=True)
        tally.seconds = time.monotonic() - self.began
        done = tally.num_read + tally.num_refused >= self.count or tally.seconds >= self.seconds
        if done or len(tally.findings) == MOST_FINDINGS:
            print(tally.line(), flush=True)
            os._exit(int(bool(tally.findings)))


def _mutator(damaged: Damaged) -> Callable[[bytes, int, int], bytes]:
    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return atheris.Mutate(data, longest)
        return rng.choice(MUTATIONS)(rng, data, damaged.seeds)[:longest]

    return mutate


def _arguments(folder: Path, damaged: Damaged, seed: int) -> list[str]:
    """libFuzzer's, which name the seeds and the dictionary."""
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(damaged.seeds):
        (corpus / str(number)).write_bytes(data)
    words = {word for data in damaged.seeds for word in re.findall(rb"\w{3,}", data)}
    entries = sorted(word for word in words | set(TOKENS) if 0 < len(word) <= LONGEST_WORD)
    dictionary = folder / "dictionary"
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in entries))
    longest = max(LONGEST_INPUT, *(2 * len(data) for data in damaged.seeds))
    return [
        sys.argv[0],
        f"-dict={dictionary}",
        f"-seed={seed}",
        f"-max_len={longest}",
        f"-rss_limit_mb={MEMORY_MB}",
        "-timeout=0",  # `try_input` has a limit of its own, which needs the alarm
        "-verbosity=0",
        str(corpus),
    ]


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    sys.exit(main())
