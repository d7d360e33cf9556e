"""Scores of pairs of chains against their formulas on whole arrays, for any number of ranks and any
size of chunks.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from functools import cache
from typing import Any

import numpy as np
import pytest

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.metrics import chains
from foldcp.metrics.interface import actifptm, af2complex, contacts, lis
from foldcp.metrics.interface.scores import PAE_CUTOFFS, InterfaceScores
from foldcp.metrics.scores import Scores
from tests.metrics.interface.generated_cases import CASES, generated_case
from tests.metrics.interface.interface_reference import (
    chain_pdockq2,
    cutoff_scores,
    distances,
    interface_scores,
    mpdockq,
    points,
)
from tests.metrics.interface.scoring import score
from tests.support.distributed import run
from tests.support.metrics_reference import (
    CENTERS,
    assert_close,
    frame_mask,
    softmax,
)


@cache
def reference(mixture: int, kind: str) -> dict[str, Any]:
    case = generated_case(mixture, kind)
    probability = softmax(case.pae_logits)
    pae = probability @ CENTERS
    pde = softmax(case.pde_logits) @ CENTERS
    contact = distances(points(case)[0]) < 8
    return {
        "interface": interface_scores(case, pae, pde, probability, frame_mask(case)),
        "cutoffs": {c: cutoff_scores(case.layout, pae, contact, c) for c in PAE_CUTOFFS},
        "chain_pdockq2": chain_pdockq2(case, pae),
        "structure": {"mpdockq": mpdockq(case)},
    }


def check(got: Scores, expected: dict[str, Any], rtol: float = 1e-6) -> None:
    scores = asdict(got)
    text = scores["interface"].pop("interface_residues")
    interface = dict(expected["interface"])
    assert text == interface.pop("interface_residues")
    assert_close(scores, {**expected, "interface": interface}, rtol, 1e-6)


@pytest.mark.parametrize(("mixture", "kind"), CASES)
def test_scores_of_pairs_follow_their_formulas(mixture: int, kind: str) -> None:
    case = generated_case(mixture, kind)
    T = len(case.rep_atom)
    check(score(ContextParallel(), case, T + 3, 19), reference(mixture, kind))


def test_the_cases_have_what_they_are_for() -> None:
    """Contacts, clashes, bonds, salt bridges and every reason of null are among them."""
    seen: dict[str, set[str]] = {field.name: set() for field in fields(InterfaceScores)}
    for mixture, kind in CASES:
        values = reference(mixture, kind)["interface"]
        for name, value in values.items():
            if name == "interface_residues":
                continue
            off = value[~np.eye(len(value), dtype=bool)]
            kinds = {"null": np.isnan(off).any(), "0": (off == 0).any(), "some": (off > 0).any()}
            seen[name] |= {word for word, found in kinds.items() if found}
    for name in ("pdockq", "pdockq2_original", "contacts_pae4", "contacts_pae15", "pitm"):
        assert seen[name] == {"null", "0", "some"}, name
    for name in ("backbone_hbonds", "salt_bridges", "clashing_atoms"):
        assert seen[name] == {"null", "0", "some"}, name
    assert seen["actifptm"] == {"null", "0", "some"} and seen["clashes"] == {"0", "some"}
    assert seen["contact_pae"] == seen["ligand_iptm"] == {"null", "some"}


@pytest.mark.parametrize(("mixture", "kind"), [(2, "mixed"), (7, "mixed"), (8, "certain")])
@pytest.mark.parametrize("size", [2, 3])
def test_scores_of_pairs_do_not_depend_on_the_number_of_ranks(
    size: int, mixture: int, kind: str
) -> None:
    case = generated_case(mixture, kind)
    N = -(-len(case.rep_atom) // 6) * 6
    one = asdict(score(ContextParallel(), case, N, N))
    one["interface"].pop("interface_residues")
    results = run(score, size, case, N, 7)
    for result in results:
        got = asdict(result)
        assert got["interface"].pop("interface_residues")
        assert_close(got, one, 1e-6, 1e-6)


def test_iplddt_weighs_modified_residues_by_their_representative_atoms() -> None:
    """Boltz's contacts are theirs; those of the other scores are between CB, where there is one."""
    case = generated_case(1, "mixed")
    layout = case.layout
    kind = np.array(layout.chain_kinds)[layout.token_chain]

    def weighted(x: np.ndarray) -> float:
        near = distances(x) < 8
        touching = (near & (layout.token_chain[:, None] != layout.token_chain)).any(1)
        weight = np.where(kind == "ligand", 20, np.where(touching, 10, 1))
        return float((case.plddt * weight).sum() / weight.sum())

    expected, other = weighted(case.coords[case.rep_atom]), weighted(points(case)[0])
    assert abs(expected - other) > 1e-4
    T = len(case.rep_atom)
    assert abs(score(ContextParallel(), case, T, T).complex_iplddt - expected) < 1e-6


def test_scores_of_pairs_do_not_depend_on_the_size_of_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = generated_case(4, "mixed")
    T = len(case.rep_atom)
    whole = asdict(score(ContextParallel(), case, T, T))
    for module in (chains, actifptm, lis):
        monkeypatch.setattr(module, "CHUNK_PAIRS", 5 * T)
    monkeypatch.setattr(contacts, "MAX_NUMBERS", 60 * T)
    monkeypatch.setattr(af2complex, "MAX_PAIRS", 11)
    parts = asdict(score(ContextParallel(), case, T, 1))
    assert whole["interface"].pop("interface_residues") == parts["interface"].pop(
        "interface_residues"
    )
    assert_close(parts, whole, 1e-6, 1e-6)
