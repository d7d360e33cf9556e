"""DockQ on our structures: it reads them, and finds the interfaces that our tables have."""

from __future__ import annotations

import json
from pathlib import Path

from tests.parity.programs.conftest import Run
from tests.parity.programs.differences import Differences
from tests.parity.programs.scored_case import ScoredCase, write_proteins


def test_dockq_finds_our_interfaces(
    cases: list[ScoredCase], folders: list[Path], run: Run, tmp_path: Path
) -> None:
    """It refuses a file without interfaces; a structure has DockQ 1 against itself."""
    differences = Differences("DockQ 2.1.3", f"{len(cases)} complexes")
    for case, folder in zip(cases, folders, strict=True):
        expected = _interfaces(case)
        if not expected:
            continue
        model = folder / f"{case.name}_model_0.cif"
        if len(case.proteins) < len(case.case.layout.chain_names):  # DockQ fails on a nucleotide
            model = tmp_path / f"{case.name}.pdb"
            write_proteins(case, folder, model)
        out = tmp_path / f"{case.name}.json"
        run("DockQ", model, model, "--json", out)
        result = json.loads(out.read_text())["best_result"]
        assert {frozenset(pair) for pair in result} == expected, case.name
        for values in result.values():
            differences.add("DockQ of a structure and itself", 1.0, values["DockQ"])
    differences.check(1e-6)


def _interfaces(case: ScoredCase) -> set[frozenset[str]]:
    """Pairs of proteins with atoms nearer than 5 Å."""
    return {
        frozenset(pair)
        for pair, row in case.pairs.items()
        if {*map(case.kind, pair)} == {"protein"} and row["num_interface_residues_a"]
    }
