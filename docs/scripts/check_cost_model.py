"""The cost model's promise of a run and what came: `python docs/scripts/check_cost_model.py RUN`.

Times are to be within 15% in the median, and the measured peak memory of 99% of the attempts at
most the predicted one. A worker group's first fold, which may compile kernels, counts for memory
alone. Ends with 1 if the promise was broken.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from foldcp.pipeline.scheduling.costs.factors import kind_of
from foldcp.pipeline.storage.tables import read_table
from foldcp.printable import printable

MAX_TIME_ERROR = 0.15
MIN_BOUNDED = 0.99
NUM_SHOWN = 10  # attempts that are furthest from their prediction

Row = dict[str, Any]


def main() -> None:
    """Print the times by kind of fold, the worst attempts and the promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    rows = read_table(options.run, "attempts").to_pylist()
    done = [row for row in rows if row["outcome"] == "done"]
    warm = without_first(done)
    print_kinds(warm)
    print_worst(warm)
    is_kept = check(warm, done)
    num_oom = sum(row["outcome"] == "oom" for row in rows)
    print(f"attempts: {len(rows)}, of which {len(done)} done, {num_oom} out of memory")
    raise SystemExit(0 if is_kept else 1)


def without_first(rows: Iterable[Row]) -> list[Row]:
    """All but the first fold of a run on each set of GPUs."""
    seen: set[tuple[str, str]] = set()
    found: list[Row] = []
    for row in sorted(rows, key=lambda row: row["started"]):
        group = (row["run_id"], row["gpus"])
        if group in seen:
            found.append(row)
        seen.add(group)
    return found


def print_kinds(rows: Iterable[Row]) -> None:
    """Median of measured over predicted for each size class, number of ranks and precision."""
    kinds: dict[tuple[int, int, str, int], list[Row]] = {}
    for row in rows:
        batch = row["batch"] or 1
        kind = kind_of(row["num_tokens"], row["group_size"], row["precision"], batch)
        kinds.setdefault(kind, []).append(row)
    print("measured over predicted, medians, by size, GPUs and precision")
    print(f"{'tokens':>15} GPUs precision folds   time   peak GB of predicted")
    for (_, num_ranks, precision, _), members in sorted(kinds.items()):
        sizes = [row["num_tokens"] for row in members]
        time = median(time_ratio(row) for row in members)
        peaks = [peak_ratio(row) for row in members if has_peak(row)]
        memory = f"{median(peaks):6.2f}" if peaks else "     -"
        most = max(row["peak_bytes"] or 0 for row in members) / 1e9
        tokens = f"{min(sizes):,}-{max(sizes):,}"
        print(
            f"{tokens:>15} {num_ranks:>4} {precision:>9} {len(members):>5} {time:6.2f} "
            f"{most:>9.1f} {memory:>12}"
        )


def print_worst(rows: list[Row]) -> None:
    """The attempts whose times are furthest from their prediction."""
    print("furthest from their prediction")
    for row in sorted(rows, key=lambda row: -error(time_ratio(row)))[:NUM_SHOWN]:
        print(
            f"  {printable(row['name'])}: {row['num_tokens']:,} tokens on {row['group_size']}: "
            f"{row['seconds']:.1f} s, predicted {row['predicted_seconds']:.1f} s"
        )


def check(warm: list[Row], done: list[Row]) -> bool:
    """Print the promise beside what came; whether it was kept."""
    bounded = [row["peak_bytes"] <= row["predicted_peak_bytes"] for row in done if has_peak(row)]
    is_kept = True
    if warm:
        errors = [abs(row["predicted_seconds"] / row["seconds"] - 1) for row in warm]
        total = sum(row["predicted_seconds"] for row in warm) / sum(row["seconds"] for row in warm)
        is_kept = median(errors) <= MAX_TIME_ERROR
        print(
            f"times: {median(errors):.1%} off in the median of {len(warm)} folds "
            f"(promised {MAX_TIME_ERROR:.0%}), all together predicted {total:.2f} of measured"
        )
    if bounded:
        share = sum(bounded) / len(bounded)
        is_kept = is_kept and share >= MIN_BOUNDED
        print(
            f"peak memory: within the prediction in {share:.1%} of {len(bounded)} folds "
            f"(promised {MIN_BOUNDED:.0%})"
        )
    return is_kept


def time_ratio(row: Row) -> float:
    """Measured over predicted seconds."""
    return row["seconds"] / row["predicted_seconds"]


def has_peak(row: Row) -> bool:
    """Whether both peaks are known."""
    return bool(row["peak_bytes"] and row["predicted_peak_bytes"])


def peak_ratio(row: Row) -> float:
    """Measured over predicted peak memory."""
    return row["peak_bytes"] / row["predicted_peak_bytes"]


def error(ratio: float) -> float:
    """How far a ratio is from 1, the same for twice and for half."""
    return max(ratio, 1 / ratio) - 1


if __name__ == "__main__":
    main()
