"""Seconds and memory of `foldcp plan` for a screen of many pairs.

    python docs/scripts/bench_screen.py --pairs 1000000
    python docs/scripts/bench_screen.py --proteins uniprot.fasta.gz

plans a table of random pairs, without alignments, and then as many pairs of all against all. It
prints CPU seconds, which other work on the machine hardly changes, and the peak of the memory.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from foldcp.datasets.parsing.text_files import read_text
from foldcp.datasets.sequences import accession_of, fasta_records

NUM_PROTEINS = 20_000  # of an organism made up
MEDIAN_LENGTH = 415
LENGTH_SPREAD = 0.75  # standard deviation of the logarithm
NO_OUTPUT = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def main() -> None:
    """Write the inputs into a folder that is removed at the end, and plan each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=1_000_000, help="how many pairs")
    parser.add_argument("--proteins", type=Path, help="FASTA file; by default one is made up")
    arguments = parser.parse_args()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        proteins = Path(folder) / "proteins.fasta"
        if arguments.proteins:
            proteins.write_text(read_text(arguments.proteins))
        else:
            proteins.write_text("".join(made_up(draw)))
        records = list(fasta_records(proteins, proteins.read_text()))
        names = list(dict.fromkeys(accession_of(record.header) for record in records))
        table = Path(folder) / "pairs.tsv"
        table.write_text("protein_a\tprotein_b\n" + "".join(pairs(names, arguments.pairs, draw)))
        measure("table of pairs", arguments.pairs, [table, "--sequences", proteins])

        number = min(len(records), math.isqrt(2 * arguments.pairs))
        library = Path(folder) / "library.fasta"
        library.write_text("".join(f">{r.header}\n{r.letters}\n" for r in records[:number]))
        measure("all against all", number * (number + 1) // 2, [library, "--all-against-all"])


def made_up(draw: random.Random) -> Iterator[str]:
    """Records of proteins with the lengths of human ones."""
    for number in range(NUM_PROTEINS):
        length = round(draw.lognormvariate(math.log(MEDIAN_LENGTH), LENGTH_SPREAD))
        yield f">q{number}\n{''.join(draw.choices(LETTERS, k=max(10, length)))}\n"


def pairs(names: list[str], number: int, draw: random.Random) -> Iterator[str]:
    """Rows of so many different pairs."""
    for place in draw.sample(range(len(names) ** 2), number):
        first, second = divmod(place, len(names))
        yield f"{names[first]}\t{names[second]}\n"


def measure(what: str, number: int, arguments: list[str | Path]) -> None:
    """Plan an input in a process of its own, and print what that took."""
    command = [sys.executable, "-m", "foldcp", "plan", *map(str, arguments), "--gpus", "8"]
    process = os.posix_spawn(sys.executable, command, os.environ, file_actions=[NO_OUTPUT])
    _, status, used = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{what}: foldcp plan failed")
    seconds = used.ru_utime + used.ru_stime
    gigabytes = used.ru_maxrss / 1e6
    print(f"{what}: {number:,} pairs in {seconds:.1f} s of CPU; at most {gigabytes:.2f} GB")


if __name__ == "__main__":
    main()
