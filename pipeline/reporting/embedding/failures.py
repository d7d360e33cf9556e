"""Complexes without a result, grouped by reason, each group with what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from foldcp.pipeline.reporting.run_tables import DataFrame

NUM_REASONS = 5  # different texts of a group that are shown
NUM_NAMES = 100  # of complexes, for each group


@dataclass(frozen=True, slots=True)
class Kind:
    """A group of failures: its name, the reasons that belong to it, and a remedy."""

    name: str
    pattern: str
    remedy: str


KINDS = (
    Kind(
        "Out of memory",
        r"memory|\boom\b|\bGB\b.*\b(?:GPU|rank)",
        "Run the same command on more GPUs or on larger ones; foldcp plan says what each complex "
        "needs.",
    ),
    Kind(
        "More GPUs needed than there are",
        r"needs? .*(?:GPU|rank)",
        "Run the same command with as many GPUs as foldcp plan says.",
    ),
    Kind(
        "Deadline passed",
        r"timeout|deadline|took over|no answer",
        "Raise run.deadline_factor, if the machine is slower than its hardware file says; the "
        "same command tries again.",
    ),
    Kind(
        "Process or node lost",
        r"died|lost|killed|signal|crash",
        "The same command tries again. If it happens to the same complex on several nodes, look "
        "at the logs of Ray.",
    ),
    Kind(
        "Sequence not found",
        r"unknown accession|no sequence|not (?:found )?among the sequences",
        "Give a file with these entries as --sequences (obsolete accessions are in UniProt's "
        "older releases), or correct the accession in the input.",
    ),
    Kind(
        "Alignment missing or unreadable",
        r"alignment|\ba3m\b|\bmsa",
        "Make it with foldcp msa and give the folder as --msas, or fold without alignments with "
        "--set msa.missing=single-sequence.",
    ),
    Kind(
        "Ligand or residue unknown",
        r"smiles|\bccd\b|ligand|residue|modif",
        "Correct the component in the input; names are those of the PDB's chemical components.",
    ),
)
OTHER = {
    "invalid": Kind(
        "Record cannot be folded",
        "",
        "Correct the record in the input; the same command then folds it.",
    ),
    "failed": Kind(
        "Failed otherwise",
        "",
        "The same command tries again; the table attempts has every attempt.",
    ),
}


def group_failures(complexes: DataFrame) -> list[dict[str, Any]]:
    """Groups of complexes without a result, the largest first.

    `complexes` has one row per complex.
    """
    failures = complexes[complexes["outcome"] != "done"]
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    rows = zip(failures["name"], failures["outcome"], failures["reason"], strict=True)
    for name, outcome, reason in rows:
        kind = _kind_of(outcome, reason)
        group = groups.setdefault(
            (kind.name, outcome),
            {
                "name": kind.name,
                "outcome": outcome,
                "remedy": kind.remedy,
                "count": 0,
                "reasons": {},
                "names": [],
            },
        )
        group["count"] += 1
        group["reasons"][reason] = group["reasons"].get(reason, 0) + 1
        if len(group["names"]) < NUM_NAMES:
            group["names"].append(name)
    return [_shortened(group) for group in sorted(groups.values(), key=lambda g: -g["count"])]


def _kind_of(outcome: str, reason: str) -> Kind:
    for kind in KINDS:
        if re.search(kind.pattern, reason, re.IGNORECASE):
            return kind
    return OTHER["invalid" if outcome == "invalid" else "failed"]


def _shortened(group: dict[str, Any]) -> dict[str, Any]:
    """The group with its most frequent reasons, and the numbers of what is left out."""
    reasons = sorted(group["reasons"].items(), key=lambda item: -item[1])
    return {
        **group,
        "reasons": reasons[:NUM_REASONS],
        "num_other_reasons": len(reasons[NUM_REASONS:]),
        "num_other_names": group["count"] - len(group["names"]),
    }
