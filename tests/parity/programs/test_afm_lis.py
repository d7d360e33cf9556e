"""AFM-LIS's script on the proteins of generated complexes, in ColabFold's layout, and at other
cutoffs. It gives the mean of both directions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from foldcp.metrics.interface.scores import LIS_CUTOFF, PAE_CUTOFFS
from foldcp.pipeline.storage.columns.interface_columns import LIS_NAMES, cutoff_column
from tests.parity.programs.conftest import SCRIPTS, Run
from tests.parity.programs.differences import Differences
from tests.parity.programs.scored_case import ScoredCase, write_proteins

COLUMNS = dict(zip(LIS_NAMES, ("LIS", "LIA", "cLIS", "cLIA", "iLIS"), strict=True))


def test_afm_lis_on_generated_complexes(
    cases: list[ScoredCase],
    folders: list[Path],
    run: Run,
    source: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    script = source("AFM-LIS")
    differences = Differences("AFM-LIS", f"{len(cases)} complexes")
    for case, folder in zip(cases, folders, strict=True):
        if len(case.proteins) < 2:
            continue
        files = _colabfold_files(case, folder, tmp_path)
        for cutoff in PAE_CUTOFFS if case.name.endswith("_mixed") else (LIS_CUTOFF,):
            out = tmp_path / f"{case.name}-{cutoff}"
            command = (SCRIPTS / "without_rounding.py", script, *files, "-o", out, "-p", cutoff)
            run("python", *command)
            (table,) = out.iterdir()
            _compare(case, pd.read_csv(table), cutoff, differences)
    differences.check(1e-6)


def _colabfold_files(case: ScoredCase, folder: Path, out: Path) -> tuple[Path, Path]:
    """The proteins as a PDB file and a JSON file, as ColabFold names them."""
    pdb = out / f"{case.name}_unrelaxed_rank_1_model_1.pdb"
    write_proteins(case, folder, pdb)
    layout = case.case.layout
    chosen = np.isin(np.array(layout.chain_names)[layout.token_chain], case.proteins)
    scores = {
        "pae": case.pae[np.ix_(chosen, chosen)].tolist(),
        "plddt": (100 * case.case.plddt[chosen]).tolist(),
        "ptm": 0.5,
        "iptm": 0.5,
    }
    path = out / f"{case.name}_scores_rank_1_model_1.json"
    path.write_text(json.dumps(scores))
    return pdb, path


def _compare(
    case: ScoredCase,
    table: pd.DataFrame,
    cutoff: int,
    differences: Differences,
) -> None:
    """Every pair of different chains of the script's table."""
    pairs = case.pairs
    proteins = case.proteins
    compared = 0
    for line in table.to_dict("records"):
        a = proteins[line["chain_1"] - 1]
        b = proteins[line["chain_2"] - 1]
        if a == b:
            continue
        for name, theirs in COLUMNS.items():
            column = cutoff_column(name, cutoff)
            ours = (pairs[a, b][column] + pairs[b, a][column]) / 2
            differences.add(name, ours, line[theirs])
        compared += 1
    assert compared == len(proteins) * (len(proteins) - 1) // 2
