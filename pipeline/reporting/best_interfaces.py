"""The best interfaces of a run, as a DataFrame and as a table for a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from foldcp.pipeline.reporting.formatting import format_number, shorten
from foldcp.pipeline.reporting.run_tables import (
    checkpoint_warning,
    fresh_rows,
    stale_warning,
    to_records,
)
from foldcp.printable import printable

PAIR = ["key", "name", "chain_a", "chain_b", "accession_a", "accession_b"]
MAX_NAME_WIDTH = 44  # characters of name and title
HEADER = ["complex", "chains", "accessions"]
NUM_TEXTS = len(HEADER)  # columns before the numbers
HEADER += ["ipSAE a>b", "b>a", "ipTM a>b", "b>a", "min PAE", "contacts"]


def best_interfaces(out: Path | str, n: int | None = None) -> pd.DataFrame:
    """The `n` best pairs of chains (all without `n`), one row each.

    Pairs are ranked by `ipsae_min`, the ipSAE (d0res) of the worse direction, averaged over the
    samples, and equal ones by the better ipTM. Pairs without one, such as those of ligands, come
    last. Columns end in _ab for frames in chain_a and scored tokens in chain_b, in _ba for the
    other direction; all are means over samples. `structure` is the file of the most confident
    sample. Stale results are left out.

    Raises ValueError when `out` is not the folder of a run.
    """
    rows = fresh_rows(out, "interfaces")
    forward = rows[rows["chain_index_a"] < rows["chain_index_b"]]
    reverse = rows[rows["chain_index_a"] > rows["chain_index_b"]]
    reverse = reverse.rename(columns={"chain_a": "chain_b", "chain_b": "chain_a"})
    both = forward.merge(reverse, on=["key", "sample", "chain_a", "chain_b"], suffixes=("", "_ba"))
    both["ipsae_min"] = both[["ipsae_d0res", "ipsae_d0res_ba"]].min(axis=1)
    both["pae_min"] = both[["pae_min", "pae_min_ba"]].min(axis=1)
    means = both.groupby(PAIR, as_index=False, dropna=False, sort=False).agg(
        num_samples=("sample", "count"),
        ipsae_min=("ipsae_min", "mean"),
        ipsae_ab=("ipsae_d0res", "mean"),
        ipsae_ba=("ipsae_d0res_ba", "mean"),
        iptm_ab=("iptm", "mean"),
        iptm_ba=("iptm_ba", "mean"),
        pae_min=("pae_min", "mean"),
        num_contacts=("num_contacts", "mean"),
        plddt_ab=("interface_plddt", "mean"),
        plddt_ba=("interface_plddt_ba", "mean"),
    )
    complexes = fresh_rows(out, "complexes")
    best_samples = complexes.loc[
        complexes["rank"] == 0,
        ["key", "title", "organism", "num_tokens", "structure", "checkpoint"],
    ]
    found = means.merge(best_samples, on="key", how="left")
    found["iptm_max"] = found[["iptm_ab", "iptm_ba"]].max(axis=1)
    order = ["ipsae_min", "iptm_max", "name", "key", "chain_a", "chain_b"]
    found = found.sort_values(
        order, ascending=[False, False, True, True, True, True], ignore_index=True
    )
    return found if n is None else found.head(n)


def format_best(out: Path | str, n: int = 10) -> str:
    """The best interfaces as lines for a terminal, with both directions of ipSAE and ipTM."""
    best = best_interfaces(out, n)
    lines = [line for line in (checkpoint_warning(out), stale_warning(out)) if line]
    if best.empty:
        return "\n".join([*lines, "no interfaces: no complex of two or more chains has a result"])
    table = [HEADER, *(_cells(row) for row in to_records(best))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        texts = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append("  ".join(texts[:NUM_TEXTS] + numbers[NUM_TEXTS:]))
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    """A row of the terminal's table."""
    title = row["title"] if row["title"] != row["name"] else ""
    texts = [
        shorten(f"{row['name']} {title}".strip(), MAX_NAME_WIDTH),
        f"{row['chain_a']}-{row['chain_b']}",
        f"{row['accession_a']}-{row['accession_b']}".strip("-"),
    ]
    scores = [row[name] for name in ("ipsae_ab", "ipsae_ba", "iptm_ab", "iptm_ba")]
    return [
        *map(printable, texts),
        *(format_number(score, 3) for score in scores),
        format_number(row["pae_min"], 1),
        format_number(row["num_contacts"], 0),
    ]
