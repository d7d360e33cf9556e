"""Statistics of alignments against a computation letter by letter."""

from __future__ import annotations

import random

import pytest

from foldcp.pipeline.msa_search.statistics import msa_statistics


def similar(a: str, b: str) -> bool:
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x != "-" and y != "-"]
    equal = sum(x == y for x, y in pairs)
    return a == b or (bool(pairs) and 5 * equal >= 4 * len(pairs))


def random_rows(count: int, columns: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    query = "".join(draw.choices("ACDEFGHIKLMNPQRSTVWY", k=columns))
    rows = [query]
    while len(rows) < count:
        parent = draw.choice(rows)
        rows.append("".join(draw.choice("AZX-") if draw.random() < 0.12 else c for c in parent))
    return rows


@pytest.mark.parametrize("columns", [5, 63, 64, 65, 130])
def test_statistics_equal_a_naive_computation(columns: int) -> None:
    rows = random_rows(60, columns, columns)
    neff = sum(1 / sum(similar(a, b) for b in rows) for a in rows)
    covered = [1 - row.count("-") / columns for row in rows[1:]]
    found = msa_statistics(rows)
    assert found.depth == 60
    assert found.neff == pytest.approx(neff, abs=1e-3)
    assert found.coverage == pytest.approx(sum(covered) / len(covered), abs=1e-5)


def test_exactly_80_percent_is_similar_and_insertions_do_not_count() -> None:
    assert msa_statistics(["AAAAA", "AAgggAAC"]).neff == 1
    assert msa_statistics(["AAAAA", "AAACC"]).neff == 2
    assert msa_statistics(["AAAAA", "A----"]).neff == 1  # over the columns of both
    assert msa_statistics(["AA", "A-", "-A"]).coverage == 0.5


def test_a_query_alone_and_rows_of_gaps() -> None:
    alone = msa_statistics(["MKT"])
    assert (alone.depth, alone.neff, alone.coverage) == (1, 1, 0)
    assert msa_statistics(["MKT", "---"]).neff == 2


def test_many_rows_are_sampled() -> None:
    rows = random_rows(900, 40, 3)
    exact = msa_statistics(rows).neff
    assert msa_statistics(rows, max_sample=300).neff == pytest.approx(exact, rel=0.15)
