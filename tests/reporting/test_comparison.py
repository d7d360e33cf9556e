"""The comparison of two runs against their rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foldcp.pipeline.reporting.comparison import write_comparison
from foldcp.pipeline.reporting.run_tables import fresh_rows
from tests.support.report.large_run import write_large_run
from tests.support.report.page import Tags, unpack


def test_write_comparison_matches_pairs_by_name(tmp_path: Path) -> None:
    first = tmp_path / "first"
    second = tmp_path / "second"
    write_large_run(first, 5, 0, 2, names={3: "same", 4: "same"})
    write_large_run(second, 6, 0, 3, names={2: "renamed", 3: "same", 4: "same"})
    path = write_comparison(first, second)
    assert path == second / "comparison.html"
    page = path.read_text(encoding="utf-8")
    found = unpack(page, "pairs")
    tables = [fresh_rows(out, "pairs") for out in (first, second)]
    known = [table[table["name"].isin(["1", "2", "same"])] for table in tables]
    assert len(found["name"]) == len(known[0]) == len(known[1]) > 3
    assert f"{len(known[0])} pairs in both" in Tags(page).words
    for which, table in zip(("first", "second"), known, strict=True):
        for name in ("ipsae_d0res", "iptm"):
            values = sorted(table[f"{name}_mean"])
            np.testing.assert_allclose(sorted(found[f"{name}_{which}"]), values, atol=6e-5)
    one = tables[0][tables[0]["name"] == "1"].iloc[0]
    row = found["name"].index("1")
    assert found["iptm_first"][row] == pytest.approx(one["iptm_mean"], abs=6e-5)
    assert found["molecule_a"][row] == f"{one['chain_a']} {one['gene_a']}"


def test_write_comparison_refuses_one_run_twice_and_what_is_none(tmp_path: Path) -> None:
    write_large_run(tmp_path / "run", 1, 0, 1)
    with pytest.raises(ValueError, match="the same run twice"):
        write_comparison(tmp_path / "run", tmp_path / "run" / ".." / "run")
    with pytest.raises(ValueError, match="not the folder of a run"):
        write_comparison(tmp_path / "run", tmp_path)
