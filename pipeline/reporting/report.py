"""The HTML report of a run: best interfaces, failures, notes on the inputs, and times."""

from __future__ import annotations

import json
import os
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from foldcp.pipeline.reporting.best_interfaces import best_interfaces
from foldcp.pipeline.reporting.formatting import (
    format_bytes,
    format_duration,
    format_number,
    format_time,
)
from foldcp.pipeline.reporting.run_tables import (
    DataFrame,
    fresh_rows,
    stale_warning,
    to_records,
    untrained_warning,
)
from foldcp.pipeline.storage.run_folder import TEMPORARY, read_run
from foldcp.pipeline.storage.tables import read_table

REPORT = "report.html"
TEMPLATE = "report.html.j2"
# Rows of the page; the tables have all.
NUM_BEST = 25
NUM_FAILURES = 200
NUM_SLOWEST = 10
NUM_NOTES = 5  # of each subject
NUM_EXAMPLES = 3
STAGES = ("features", "trunk", "sampling", "confidence", "write")
OUTCOMES = ("done", "failed", "invalid")
FILTERS = {
    "number": format_number,
    "duration": format_duration,
    "size": format_bytes,
    "when": format_time,
}


def write_report(out: Path | str) -> Path:
    """Write RUN/report.html, a page that needs no other file, and return its path.

    Raises:
        ValueError: `out` is not the folder of a run.
        OSError: the page cannot be written there.
    """
    template = resources.files("foldcp.pipeline.reporting") / TEMPLATE
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    page = environment.from_string(template.read_text(encoding="utf-8"))
    text = page.render(_content(Path(out)))
    path = Path(out) / REPORT
    temporary = Path(out) / TEMPORARY / REPORT
    temporary.parent.mkdir(exist_ok=True)
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(temporary, path)
    return path


def _content(out: Path) -> dict[str, Any]:
    """Variables of the template."""
    run = read_run(out)
    samples = fresh_rows(out, "complexes")
    complexes = samples.drop_duplicates("key")
    best = best_interfaces(out)
    return {
        "run": run,
        "untrained": untrained_warning(out),
        "stale": stale_warning(out),
        "settings": json.dumps(run["settings"], indent=2, ensure_ascii=False),
        "counts": {outcome: int((complexes["outcome"] == outcome).sum()) for outcome in OUTCOMES},
        "num_samples": int(samples["sample"].count()),
        "has_structures": bool(samples["structure"].notna().any()),
        "num_pairs": len(best),
        "best": to_records(best.head(NUM_BEST)),
        "notes": _notes(complexes),
        "runs": to_records(read_table(out, "runs").to_pandas()),
        **_failures(complexes),
        **_times(read_table(out, "attempts").to_pandas()),
    }


def _failures(complexes: DataFrame) -> dict[str, Any]:
    """Complexes without a result, and their most frequent reasons."""
    failures = complexes[complexes["outcome"] != "done"].sort_values(["outcome", "name"])
    reasons = failures.groupby(["outcome", "reason"], as_index=False).size()
    reasons = reasons.sort_values("size", ascending=False)
    return {
        "failures": to_records(failures.head(NUM_FAILURES)),
        "num_failures": len(failures),
        "reasons": to_records(reasons.head(NUM_SLOWEST)),
    }


def _times(attempts: DataFrame) -> dict[str, Any]:
    """The time of each stage, and the slowest attempts."""
    done = attempts[attempts["outcome"] == "done"]
    slowest = done.sort_values("seconds", ascending=False)
    return {
        "stages": {stage: float(done[f"seconds_{stage}"].sum()) for stage in STAGES},
        "gpu_seconds": float((attempts["seconds"] * attempts["group_size"]).sum()),
        "num_attempts": len(attempts),
        "num_unsuccessful": len(attempts) - len(done),
        "slowest": to_records(slowest.head(NUM_SLOWEST)),
    }


def _notes(complexes: DataFrame) -> list[dict[str, Any]]:
    """The notes on the inputs, by subject: the most frequent ones, each with the number of
    complexes and names of some, and the numbers of all others.
    """
    subjects: dict[str, dict[str, list[str]]] = {}  # subject -> text -> names of complexes
    for name, notes in zip(complexes["name"], complexes["notes"], strict=True):
        for note in dict.fromkeys(notes):
            subject, _, text = note.partition(": ")
            subjects.setdefault(subject, {}).setdefault(text, []).append(name)
    totals = Counter({s: sum(map(len, texts.values())) for s, texts in subjects.items()})
    return [_subject_notes(subject, subjects[subject]) for subject, _ in totals.most_common()]


def _subject_notes(subject: str, texts: dict[str, list[str]]) -> dict[str, Any]:
    ordered = sorted(texts.items(), key=lambda item: -len(item[1]))
    others = ordered[NUM_NOTES:]
    return {
        "subject": subject,
        "notes": [
            {"text": text, "count": len(names), "examples": names[:NUM_EXAMPLES]}
            for text, names in ordered[:NUM_NOTES]
        ],
        "num_other": len(others),
        "num_other_complexes": sum(len(names) for _, names in others),
    }
