"""The command `foldcp calibrate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from foldcp.pipeline.output_paths import check_file_writable
from foldcp.printable import printable

DEFAULT_RATES = "0.01,0.05,0.1"
NUM_SCORES = 12  # that a terminal shows


def calibrate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    positives: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Known interactions: a name of a complex, or two accessions, on each line.",
        ),
    ],
    negatives: Annotated[
        Path, typer.Option(metavar="FILE", help="Pairs or complexes known not to interact.")
    ],
    rates: Annotated[
        str, typer.Option("--fpr", metavar="R,R", help="False-positive rates.")
    ] = DEFAULT_RATES,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the thresholds of all scores.")
    ] = None,
) -> None:
    """Find the thresholds of the scores of a run at chosen false-positive rates, with bootstrap
    intervals, from complexes or protein pairs that are known to interact and known not to. The
    published bands were calibrated on other networks.

    \b
    foldcp calibrate screen-run --positives known.tsv --negatives random.tsv
    foldcp calibrate screen-run --positives known.tsv --negatives random.tsv --fpr 0.01 --csv t.csv
    """
    from foldcp.pipeline.evaluation.calibrate import calibrate as fit
    from foldcp.pipeline.reporting.query import format_table

    try:
        numbers = [float(rate) for rate in rates.split(",")]
    except ValueError:
        raise ValueError(f"--fpr {rates!r}: expected numbers, such as {DEFAULT_RATES}") from None
    if csv is not None:
        check_file_writable(csv)
    found = fit(run, positives, negatives, numbers)
    for warning in found.warnings:
        print(printable(f"warning: {warning}"), file=sys.stderr)
    if csv is not None:
        _write(csv, found.rows.to_csv(index=False))
    print(format_table(found.rows.head(NUM_SCORES * len(numbers))), end="")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from error
