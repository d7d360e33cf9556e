"""AlphaFold 3's functions on the arrays of generated complexes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.parity.programs.conftest import SCRIPTS, Run
from tests.parity.programs.differences import Differences
from tests.parity.programs.scored_case import ScoredCase
from tests.support.metrics_reference import CENTERS, d0_of, frame_mask, softmax


def test_alphafold3_on_generated_complexes(
    cases: list[ScoredCase], run: Run, source: Callable[[str], Path], tmp_path: Path
) -> None:
    script = source("AlphaFold 3")
    differences = Differences("AlphaFold 3", f"{len(cases)} complexes")
    clashing = set()
    for case in cases:
        given = tmp_path / "arrays.npz"
        np.savez(given, **_arrays(case))
        out = tmp_path / "out.json"
        run("python", SCRIPTS / "alphafold3_confidences.py", script, given, out)
        theirs = json.loads(out.read_text())
        (row,) = case.rows["complexes"]
        clashing.add(theirs["has_clash"])
        differences.add("has_clash", row["has_clash"], theirs["has_clash"])
        differences.add("ranking_score", row["ranking_score"], theirs["ranking_score"])
        _compare_pairs(case, theirs, differences)
    assert clashing == {False, True}
    differences.check(1e-6, dict.fromkeys(("pae_mean", "pae_min", "pde_mean", "pde_min"), 5e-6))


def _compare_pairs(case: ScoredCase, theirs: dict[str, list], differences: Differences) -> None:
    names = case.case.layout.chain_names
    num_tokens = np.bincount(case.case.layout.token_chain)
    pairs = case.pairs
    for a, name_a in enumerate(names):
        own = theirs["iptm"][_index_of(num_tokens[a])][a][a]
        ptm = case.rows["chains"][a]["ptm"]
        differences.add("ptm of a chain", None if ptm != ptm else ptm, own)
        for b, name_b in enumerate(names):
            if a == b:
                continue
            row = pairs[name_a, name_b]
            for column in ("pae_mean", "pae_min", "pde_mean", "pde_min"):
                differences.add(column, row[column], theirs[column][a][b])
            both = [row["iptm"], pairs[name_b, name_a]["iptm"]]
            iptm = max((x for x in both if x is not None), default=None)
            at_d0 = theirs["iptm"][_index_of(num_tokens[a] + num_tokens[b])]
            differences.add("iptm, the larger", iptm, at_d0[a][b])


SIZES = range(1, 100)  # of pairs of chains; beyond the largest that is generated


def _index_of(num_tokens: int) -> int:
    """Where the TM-scores of so many tokens are in `tm_adjusted_pae`."""
    return SIZES.index(int(num_tokens))


def _arrays(case: ScoredCase) -> dict[str, np.ndarray]:
    layout = case.case.layout
    probability = softmax(case.case.pae_logits)
    polymer = np.array([kind != "ligand" for kind in layout.chain_kinds])
    of_polymer = polymer[layout.token_chain][layout.atom_token]
    (row,) = case.rows["complexes"]
    valid = frame_mask(case.case)
    return {
        "asym_ids": layout.token_chain,
        "pae": case.pae,
        "pde": softmax(case.case.pde_logits) @ CENTERS,
        "mask": np.repeat(valid[:, None], len(valid), axis=1),
        "tm_adjusted_pae": np.stack(
            [probability @ (1 / (1 + (CENTERS / d0_of(n)) ** 2)) for n in SIZES]
        ),
        "coords": case.case.coords[of_polymer],
        "residue": layout.token_residue[layout.atom_token][of_polymer],
        "chain": layout.token_chain[layout.atom_token][of_polymer],
        "ranking": np.array([row["ptm"], row["iptm"], row["fraction_disordered"]]),
    }
