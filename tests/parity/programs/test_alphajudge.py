"""alphajudge on our files of generated complexes. It lists the pairs of chains in contact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tests.parity.programs.conftest import Run
from tests.parity.programs.differences import Differences
from tests.parity.programs.scored_case import ScoredCase

FLAGS = ("--models_to_analyse", "all", "--skip_pae_png", "--skip_biophysical_scores")
# Its LIS is the mean of both directions, its pDockQ2 and ipSAE the larger of both.
MEANS = {"interface_LIS": "lis", "interface_cLIS": "clis"}


def test_alphajudge_on_generated_complexes(
    cases: list[ScoredCase], folders: list[Path], run: Run, tmp_path: Path
) -> None:
    summary = tmp_path / "summary.csv"
    run("alphajudge", *folders, *FLAGS, "--no-report", "-o", summary)
    table = pd.read_csv(summary)
    differences = Differences("alphajudge 1.4.4", f"{len(cases)} complexes")
    listed = 0
    for case, folder in zip(cases, folders, strict=True):
        lines = table[table["jobs"] == folder.name]
        for line in lines.to_dict("records"):
            a, b = line["interface"].split("_")
            if case.kind(a) == case.kind(b) == "protein":
                _compare(case, a, b, line, differences)
                listed += 1
    pairs = [case.pairs for case in cases]
    in_contact = [
        row
        for rows in pairs
        for (a, b), row in rows.items()
        if a < b and row["pdockq"] is not None and row["num_contacts"]
    ]
    assert listed == len(in_contact)
    # It reads pLDDT from the B-factors, which have three decimals; PAE is in Å.
    differences.check(1e-6, {"contact_pae": 5e-6, "pdockq2": 1e-5, "pdockq": 1e-5})


def _compare(
    case: ScoredCase, a: str, b: str, line: dict[str, float], differences: Differences
) -> None:
    """One line of its table."""
    forth = case.pairs[a, b]
    back = case.pairs[b, a]
    for theirs, ours in MEANS.items():
        differences.add(ours, (forth[ours] + back[ours]) / 2, line[theirs])
    lis = (forth["lis"] + back["lis"]) / 2
    clis = (forth["clis"] + back["clis"]) / 2
    differences.add("ilis of the means", (lis * clis) ** 0.5, line["interface_iLIS"])
    differences.add("contacts_pae4", forth["contacts_pae4"], line["interface_ccc"])
    differences.add("num_contacts", forth["num_contacts"], line["interface_contact_pairs"])
    contact_pae = (forth["contact_pae"] + back["contact_pae"]) / 2
    differences.add("contact_pae", contact_pae, line["average_interface_pae"])
    differences.add("pdockq2", max(forth["pdockq2"], back["pdockq2"]), line["interface_pDockQ2"])
    if len(case.case.layout.chain_names) == 2:
        differences.add("pdockq", forth["pdockq"], line["pDockQ/mpDockQ"])
    theirs = line["interface_ipSAE"]
    differences.add("ipsae_d0res with its d0", _ipsae(case, a, b), theirs)
    if _enough_partners(case, a, b):
        ours = max(forth["ipsae_d0res"], back["ipsae_d0res"])
        differences.add("ipsae_d0res, 27 partners or more", ours, theirs)


def _blocks(case: ScoredCase, a: str, b: str) -> list[np.ndarray]:
    """Expected PAE of both directions."""
    chains = np.array(case.case.layout.chain_names)[case.case.layout.token_chain]
    return [case.pae[np.ix_(chains == x, chains == y)] for x, y in ((a, b), (b, a))]


def _ipsae(case: ScoredCase, a: str, b: str) -> float:
    """The larger ipSAE of both directions, with d0 of 27 partners where there are fewer."""
    best = 0.0
    for block in _blocks(case, a, b):
        for row in block.astype(float):
            near = row[row < 10]
            if len(near):
                d0 = 1.24 * (max(27, len(near)) - 15) ** (1 / 3) - 1.8
                best = max(best, float((1 / (1 + (near / d0) ** 2)).mean()))
    return best


def _enough_partners(case: ScoredCase, a: str, b: str) -> bool:
    """Whether every frame that has partners has so many that no floor of d0 counts."""
    counts = [(block < 10).sum(1) for block in _blocks(case, a, b)]
    return all(((count == 0) | (count >= 27)).all() for count in counts)
