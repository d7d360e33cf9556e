"""The HTML report of a run: scores, interfaces, single complexes, failures, cost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from foldcp.pipeline.reporting.embedding.evaluation import evaluated_pairs, read_evaluation
from foldcp.pipeline.reporting.embedding.failures import group_failures
from foldcp.pipeline.reporting.embedding.loading import LoadedRun, load_run
from foldcp.pipeline.reporting.embedding.run_data import pack_run
from foldcp.pipeline.reporting.page import write_page
from foldcp.pipeline.reporting.run_tables import (
    DataFrame,
    checkpoint_warning,
    stale_warning,
    to_records,
)

REPORT = "report.html"
TEMPLATE = "run.html.j2"
MAX_DATA_BYTES = 27_000_000  # of packed tables and details; the libraries and texts are 2 MB
NUM_NOTES = 5  # of each subject
NUM_EXAMPLES = 3
OUTCOMES = ("done", "failed", "invalid")
PARTS = (
    ("overview", "Overview"),
    ("complexes", "Complexes"),
    ("interfaces", "Interfaces"),
    ("cost", "Cost"),
    ("reading", "How to read it"),
)


def write_report(out: Path | str) -> Path:
    """Write RUN/report.html, a page that needs no other file, and return its path.

    Raises:
        ValueError: `out` is not the folder of a run.
        OSError: the page cannot be written there.
    """
    loaded = load_run(out)
    unreadable: list[str] = []
    evaluation = _evaluation(loaded, unreadable)
    data = pack_run(loaded, evaluation, MAX_DATA_BYTES)
    data.facts["unreadable"] += unreadable
    content = _content(loaded, data.facts)
    path = Path(out) / REPORT
    facts = {"page": "run", "device": content["device"], **data.facts}
    write_page(path, TEMPLATE, content, facts, data.blocks)
    return path


def _evaluation(loaded: LoadedRun, unreadable: list[str]) -> DataFrame | None:
    """The interfaces that were compared with experiment; adds to `unreadable` what is wrong with
    their table.
    """
    try:
        rows = read_evaluation(loaded.out)
    except ValueError as error:
        unreadable.append(str(error))
        return None
    return None if rows is None else evaluated_pairs(loaded, rows)


def _content(loaded: LoadedRun, facts: dict[str, Any]) -> dict[str, Any]:
    """Variables of the template."""
    run = loaded.run
    out = loaded.out
    complexes = loaded.complexes
    name = out.resolve().name
    statuses = loaded.runs["status"].tolist()
    return {
        "title": f"Report of {name}",
        "heading": name,
        "subheading": f"{run['input']}, {statuses[-1] if statuses else 'not started'}",
        "parts": [{"id": id, "name": title} for id, title in PARTS],
        "warnings": _warnings(out, facts["unreadable"]),
        "run": run,
        "folder": str(out),
        "settings": json.dumps(run["settings"], indent=2, ensure_ascii=False),
        "counts": {outcome: int((complexes["outcome"] == outcome).sum()) for outcome in OUTCOMES},
        "num_samples": len(loaded.samples),
        "num_pairs": facts["num_pairs"],
        "evaluation": facts["evaluation"],
        "failures": group_failures(complexes),
        "notes": _notes(complexes),
        "runs": to_records(loaded.runs),
        "cost": facts["cost"],
        "device": "rank" if "cpu" in str(run.get("hardware") or "").lower() else "GPU",
        "described": loaded.scores,
    }


def _warnings(out: Path, unreadable: list[str]) -> list[str]:
    lines = [checkpoint_warning(out), stale_warning(out)]
    if unreadable:
        noun = "file is" if len(unreadable) == 1 else "files are"
        count = f"{len(unreadable)} {noun} left out"
        lines.append(f"{count}, damaged or changed, such as {unreadable[-1]}")
    return [line for line in lines if line]


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
