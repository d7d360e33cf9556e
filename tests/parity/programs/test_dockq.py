"""DockQ on our structures, in which it finds the interfaces of our tables; and programs on an
exported run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.exporting.export_run import export_run
from foldcp.pipeline.storage.results.result_files import result_files
from foldcp.pipeline.storage.results.result_rows import result_rows
from foldcp.pipeline.storage.store import Store
from tests.parity.programs.conftest import Run
from tests.parity.programs.differences import Differences
from tests.parity.programs.scored_case import PROVENANCE, ScoredCase, write_proteins
from tests.parity.programs.test_ipsae import VARIABLES, ipsae_variables
from tests.support.synthetic import pae_blocks_of
from tests.support.synthetic_results import INFO, finishing


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


def test_programs_read_an_exported_run(
    cases: list[ScoredCase], run: Run, source: Callable[[str], Path], tmp_path: Path
) -> None:
    """ipsae.py and DockQ on what `foldcp export RUN --to boltz` writes of a run, whose PAE is to
    0.125 Å.
    """
    case = cases[0]
    write = WriteConfig(pae="all")
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        prediction = case.with_parents
        blocks = partial(pae_blocks_of, prediction)
        files = result_files(case.task, prediction.layout, prediction, PROVENANCE, write, blocks)
        rows = result_rows(case.task, prediction.layout, prediction, PROVENANCE, write)
        store.put(case.task.key, rows, files)
    out = tmp_path / "export"
    export_run(tmp_path / "run", "boltz", out, overwrite=False)
    folder = out / "predictions" / case.name
    model = folder / f"{case.name}_model_0.cif"
    run("DockQ", model, model, "--json", tmp_path / "dockq.json")
    arguments = (folder / f"pae_{case.name}_model_0.npz", model, "10", "10")
    theirs = ipsae_variables(run, source("ipsae.py"), arguments, tmp_path / "out.json")
    differences = Differences("ipsae.py 4", "an exported run")
    for (a, b), row in case.pairs.items():
        for variable, column in VARIABLES.items():
            differences.add(column, row[column], theirs[variable][a][b])
    differences.check(5e-3, {"pdockq": 1e-5})
