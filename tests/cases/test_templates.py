"""Case 19: templates as other programs write them."""

from __future__ import annotations

import pytest

from foldcp.features.featurize import featurize
from tests.cases.support import case, error, needs_cases, plan

pytestmark = needs_cases


def resolved(name: str) -> list[int]:
    """The residues of each chain that the templates cover."""
    complex = plan(case(19) / f"{name}.yaml").task.complex
    features = featurize(complex)
    covered = features.template_mask.amax(0)
    chain = features.layout.token_chain
    return [
        sum(int(mask) for mask, c in zip(covered.tolist(), chain, strict=True) if c == i)
        for i in range(len(complex.chains))
    ]


@pytest.mark.parametrize(
    "name",
    [
        "any",
        "atoms_only",
        "auth",
        "biopython",
        "gz",
        "no_seqres",
        "no_struct_asym",
        "own",
        "seqres",
    ],
)
def test_19_all_residues_of_both_chains_are_read(name: str) -> None:
    assert resolved(name) == [20, 11]


@pytest.mark.parametrize("name", ["label", "seqres_id"])
def test_19_a_template_of_one_chain(name: str) -> None:
    assert resolved(name) == [20, 0]


def test_19_a_name_that_two_chains_have_is_refused() -> None:
    [reason] = plan(case(19) / "auth_one.yaml").reasons.values()
    assert "ambiguous protein chain 'B'; the file has A (author's B), B (author's C)" in reason


def test_19_a_forced_template_needs_a_threshold() -> None:
    assert "force: true and threshold" in error(case(19) / "force.yaml")
