"""What came of a run: its best interfaces, its failures and its times, as a page, a table or a
DataFrame.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from foldcp.pipeline.reporting.report_page import PAGE
from foldcp.pipeline.storage.run_folder import TEMPORARY, read_run
from foldcp.pipeline.storage.tables import count_stale, read_table
from foldcp.printable import printable

REPORT = "report.html"
# rows of the page; the tables have all
NUM_BEST = 25
NUM_FAILURES = 200
NUM_SLOWEST = 10
NUM_EXAMPLES = 3
STAGES = ("features", "trunk", "sampling", "confidence", "write")
PAIR = ["key", "name", "chain_a", "chain_b", "accession_a", "accession_b"]


def best_interfaces(out: Path | str, n: int | None = None) -> pd.DataFrame:
    """The `n` best pairs of chains (all without `n`), one row each, by `ipsae_min`: ipSAE (d0res)
    of the worse direction, averaged over the samples; equals by the better ipTM. Pairs without one,
    such as ligands, come last.

    Columns end in _ab for frames in chain_a and scored tokens in chain_b, in _ba for the other
    direction; all are means over samples. `structure` is the file of the most confident sample.
    Stale results are not among them. Raises ValueError when `out` is no run.
    """
    rows = _fresh(out, "interfaces")
    chains = _fresh(out, "chains")
    place = chains[["key", "sample", "chain", "chain_index"]]
    for end in "ab":
        names = {"chain": f"chain_{end}", "chain_index": f"index_{end}"}
        rows = rows.merge(place.rename(columns=names), on=["key", "sample", f"chain_{end}"])
    forth = rows[rows["index_a"] < rows["index_b"]]
    back = rows[rows["index_a"] > rows["index_b"]]
    back = back.rename(columns={"chain_a": "chain_b", "chain_b": "chain_a"})
    both = forth.merge(back, on=["key", "sample", "chain_a", "chain_b"], suffixes=("", "_ba"))
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
        contacts=("contacts", "mean"),
        plddt_ab=("interface_plddt", "mean"),
        plddt_ba=("interface_plddt_ba", "mean"),
    )
    complexes = _fresh(out, "complexes")
    about = complexes.loc[
        complexes["rank"] == 0,
        ["key", "title", "organism", "num_tokens", "structure", "checkpoint"],
    ]
    found = means.merge(about, on="key", how="left")
    found["iptm_max"] = found[["iptm_ab", "iptm_ba"]].max(axis=1)
    order = ["ipsae_min", "iptm_max", "name", "key", "chain_a", "chain_b"]
    found = found.sort_values(
        order, ascending=[False, False, True, True, True, True], ignore_index=True
    )
    return found if n is None else found.head(n)


def format_best(out: Path | str, n: int = 10) -> str:
    """The best interfaces as lines for a terminal, with both directions of ipSAE and ipTM."""
    best = best_interfaces(out, n)
    lines = [line for line in (_untrained(out), _stale(out)) if line]
    if best.empty:
        return "\n".join([*lines, "no interfaces: no complex of two or more chains has a result"])
    table = [
        [
            "complex",
            "chains",
            "accessions",
            "ipSAE a>b",
            "b>a",
            "ipTM a>b",
            "b>a",
            "min PAE",
            "contacts",
        ]
    ]
    for row in _records(best):
        title = row["title"] if row["title"] != row["name"] else ""
        names = (
            f"{row['chain_a']}-{row['chain_b']}",
            f"{row['accession_a']}-{row['accession_b']}".strip("-"),
        )
        scores = [_number(row[name], 3) for name in ("ipsae_ab", "ipsae_ba", "iptm_ab", "iptm_ba")]
        ends = _number(row["pae_min"], 1), _number(row["contacts"], 0)
        cells = [_short(f"{row['name']} {title}".strip(), 44), *names]
        table.append([*map(printable, cells), *scores, *ends])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        texts = [cell.ljust(width) for cell, width in zip(line[:3], widths[:3], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(line[3:], widths[3:], strict=True)]
        lines.append("  ".join(texts + numbers))
    return "\n".join(lines)


def write_report(out: Path | str) -> Path:
    """Write RUN/report.html, a page that needs no other file, and return its path.

    Raises ValueError when `out` is not the folder of a run, and OSError when the page cannot be
    written there.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "number": _number,
        "duration": _duration,
        "size": _size,
        "when": _when,
    }
    environment.lstrip_blocks = True
    page = environment.from_string(PAGE).render(_content(Path(out)))
    path = Path(out) / REPORT
    temporary = Path(out) / TEMPORARY / REPORT
    temporary.parent.mkdir(exist_ok=True)
    temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    os.replace(temporary, path)
    return path


def _content(out: Path) -> dict[str, Any]:
    """Everything the page shows."""
    run = read_run(out)
    complexes = _fresh(out, "complexes")
    attempts = read_table(out, "attempts").to_pandas()
    runs = read_table(out, "runs").to_pandas()
    once = complexes.drop_duplicates("key")
    best = best_interfaces(out)
    failures = once[once["outcome"] != "done"].sort_values(["outcome", "name"])
    reasons = (
        failures.groupby(["outcome", "reason"], as_index=False)
        .size()
        .sort_values("size", ascending=False)
    )
    done = attempts[attempts["outcome"] == "done"]
    return {
        "run": run,
        "untrained": _untrained(out),
        "stale": _stale(out),
        "assumptions": _assumptions(once),
        "settings": json.dumps(run["settings"], indent=2, ensure_ascii=False),
        "counts": {
            word: int((once["outcome"] == word).sum()) for word in ("done", "failed", "invalid")
        },
        "num_samples": int(complexes["sample"].count()),
        "num_pairs": len(best),
        "best": _records(best.head(NUM_BEST)),
        "failures": _records(failures.head(NUM_FAILURES)),
        "num_failures": len(failures),
        "reasons": _records(reasons.head(NUM_SLOWEST)),
        "runs": _records(runs),
        "stages": {stage: float(done[f"seconds_{stage}"].sum()) for stage in STAGES},
        "gpu_seconds": float((attempts["seconds"] * attempts["group_size"]).sum()),
        "num_attempts": len(attempts),
        "num_retries": int((attempts["outcome"] != "done").sum()),
        "slowest": _records(done.sort_values("seconds", ascending=False).head(NUM_SLOWEST)),
    }


def _fresh(out: Path | str, table: str) -> Any:
    """The rows of the present input and settings, as a DataFrame."""
    rows = read_table(out, table).to_pandas()
    return rows.loc[~rows["stale"]]


def _assumptions(complexes: pd.DataFrame) -> list[dict[str, Any]]:
    """What was assumed where the input does not say: by subject, with the number of complexes
    and some examples.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for name, notes in zip(complexes["name"], complexes["notes"], strict=True):
        for note in notes:
            subject, _, text = note.partition(": ")
            found.setdefault(subject, []).append((name, text))
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    return [
        {"subject": s, "count": len(notes), "examples": notes[:NUM_EXAMPLES]}
        for s, notes in ordered
    ]


def _stale(out: Path | str) -> str:
    """How many results are left out, as the input or the settings have changed since; empty
    without any.
    """
    count = count_stale(out)
    if not count:
        return ""
    return (
        f"{count} stale {'result' if count == 1 else 'results'}, of an earlier input or other "
        "settings, left out."
    )


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries, None for what is missing."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def _untrained(out: Path | str) -> str:
    """The warning about random weights, empty for a trained network."""
    run = read_run(out)
    if not run["untrained"]:
        return ""
    return (
        f"UNTRAINED: the weights ({run['checkpoint']}) are random, so the scores and "
        "structures mean nothing."
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def _duration(seconds: float | None) -> str:
    if seconds is None or seconds != seconds:
        return "-"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _size(count: float | None) -> str:
    return "-" if not count else f"{count / 1e9:.2f} GB"


def _when(time: datetime | None) -> str:
    return "-" if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
