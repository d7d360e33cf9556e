"""Fuzzing of one reader: `python -m tests.fuzz READER --seconds S --seed N`.

Exit code 1 when something other than a ValueError came out, or nothing for 10 seconds; each such
input is kept.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from tests.fuzz.readers import READERS
from tests.fuzz.run import fuzz


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("reader", choices=[*READERS, "all"])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each reader")
    parser.add_argument(
        "--count",
        type=int,
        default=0,
        help="at most so many inputs for each reader; 0: no limit",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path("fuzz-findings"),
        help="folder for inputs that break a reader",
    )
    options = parser.parse_args()
    warnings.simplefilter("error")
    num_findings = 0
    for name, reader in READERS.items():
        if options.reader in (name, "all"):
            tally = fuzz(reader, options.seconds, options.seed, options.count)
            print(tally.line(), flush=True)
            for number, finding in enumerate(tally.findings):
                options.keep.mkdir(exist_ok=True)
                kept = options.keep / f"{name}-{options.seed}-{number}-{reader.file}"
                kept.write_bytes(finding.data)
                print(f"{kept}: {finding.reason}\n{finding.location}", flush=True)
            num_findings += len(tally.findings)
    return int(num_findings > 0)


if __name__ == "__main__":
    sys.exit(main())
