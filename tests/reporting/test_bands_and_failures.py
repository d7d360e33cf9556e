"""What the report says of scores and of failures."""

from __future__ import annotations

import pandas as pd
import pytest

from foldcp.pipeline.reporting.bands import BAND_COLOURS, RULES, describe_scores, label_of
from foldcp.pipeline.reporting.embedding.failures import NUM_NAMES, group_failures

TABLES = ("complexes", "chains", "interfaces")


def test_rules_have_a_name_and_colour_for_each_band() -> None:
    for rule in RULES:
        assert len(rule.names) == len(rule.limits) + 1 and len(rule.names) in BAND_COLOURS
        assert len(set(rule.names)) == len(rule.names)
        assert sorted(rule.limits) in (list(rule.limits), list(rule.limits)[::-1])


def test_describe_scores_orders_bands_by_direction() -> None:
    for table in TABLES:
        for score in describe_scores(table):
            limits = [band["limit"] for band in score["bands"][:-1]]
            assert limits == sorted(limits, reverse=not score["isLowerBetter"]), score["name"]
            assert score["label"] and score["description"]


def test_describe_scores_says_how_to_read_each_score() -> None:
    for table in TABLES:
        for score in describe_scores(table):
            assert score["sentence"], score["name"]


def test_describe_scores_has_the_published_bands() -> None:
    scores = {score["name"]: score for score in describe_scores("interfaces")}
    limits = {name: [band["limit"] for band in s["bands"]] for name, s in scores.items()}
    assert limits["ipsae_d0res"] == [0.8, 0.7, 0.6, None]
    assert limits["iptm"] == [0.8, 0.6, None]
    assert limits["pae_min"] == [5, 10, 20, None]
    assert limits["num_contacts"] == []
    assert limits["ipsae_d0res_15"] == []  # the bands are those of 10 Å
    assert list(scores)[:2] == ["ipsae_strict", "ipsae_d0res"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("ipsae_d0res", "ipSAE (d0 of residues)"),
        ("ipsae_d0res_12", "ipSAE (d0 of residues) at 12 Å"),
        ("num_contacts", "Contacts"),
        ("ipsae_strict", "ipSAE (worse direction)"),
        ("interface_plddt", "Interface pLDDT"),
        ("pdockq2", "pDockQ2"),
    ],
)
def test_label_of(name: str, label: str) -> None:
    assert label_of(name) == label


def failures(rows: list[tuple[str, str, str]]) -> list[dict[str, object]]:
    return group_failures(pd.DataFrame(rows, columns=["name", "outcome", "reason"]))


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        ("P1: no sequence", "Sequence not found"),
        ("the GPU is out of memory with 1,024 MSA rows", "Out of memory"),
        ("needs 8 GPUs, and there are 4", "More GPUs needed than there are"),
        ("chain A: no alignment for P1", "Alignment missing or unreadable"),
        ("the fold took over 300 s", "Deadline passed"),
        ("worker died", "Process or node lost"),
        ("unknown CCD code XYZ1", "Ligand or residue unknown"),
    ],
)
def test_group_failures_knows_reasons(reason: str, name: str) -> None:
    (group,) = failures([("a", "failed", reason)])
    assert group["name"] == name and group["remedy"]


def test_group_failures_counts_and_shortens() -> None:
    rows = [(f"c{n}", "invalid", f"P{n}: no sequence") for n in range(NUM_NAMES + 3)]
    rows += [("x", "done", ""), ("y", "failed", "odd")]
    first, second = failures(rows)
    assert first["count"] == NUM_NAMES + 3 and first["num_other_names"] == 3
    assert first["num_other_reasons"] == NUM_NAMES + 3 - len(first["reasons"])
    assert (second["name"], second["count"]) == ("Failed otherwise", 1)
