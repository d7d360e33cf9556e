"""Print the best interfaces of a run and the complexes without a result.

make demo
python examples/read_tables.py demo-run
python examples/read_tables.py demo-run --csv interfaces.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import foldcp


def main() -> None:
    parser = argparse.ArgumentParser(description="Summarize the tables of a run.")
    parser.add_argument("run", type=Path, help="folder of a run, finished or not")
    parser.add_argument("--best", type=int, default=10, help="how many interfaces to print")
    parser.add_argument("--csv", type=Path, help="also write all pairs to this file")
    arguments = parser.parse_args()

    tables = foldcp.read_run(arguments.run)
    pairs = tables.interfaces
    if tables.complexes["untrained"].any():
        print("The weights are random: the scores mean nothing.\n")

    # Both directions of a pair are rows; the strict score of a pair is its lower direction. Ligands
    # have no ipSAE, so their pairs are left out here.
    pairs = pairs.dropna(subset=["ipsae_d0res"])
    ends = pairs[["chain_a", "chain_b"]]
    pairs = pairs.assign(pair=ends.min(axis=1) + "-" + ends.max(axis=1))
    lower = pairs.groupby(["name", "pair", "sample"])["ipsae_d0res"].min()
    best = lower.groupby(["name", "pair"]).mean().sort_values(ascending=False)
    print(best.head(arguments.best).round(3).to_string())

    missing = tables.complexes.loc[tables.complexes["outcome"] != "done"]
    print(f"\n{len(missing)} complexes without a result")
    for name, outcome, reason in missing[["name", "outcome", "reason"]].to_numpy():
        print(f"{name}: {outcome}: {reason}")

    if arguments.csv:
        best.to_csv(arguments.csv)


if __name__ == "__main__":
    main()
