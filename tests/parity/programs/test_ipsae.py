"""ipsae.py 4 on our files of generated complexes, and on the example that it ships."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.parity.programs.conftest import SCRIPTS, Run
from tests.parity.programs.differences import Differences
from tests.parity.programs.scored_case import ScoredCase

# Its variable -> our column; 0 instead of null is its way.
VARIABLES = {
    "ipsae_d0res_asym": "ipsae_d0res",
    "ipsae_d0chn_asym": "ipsae_d0chn",
    "ipsae_d0dom_asym": "ipsae_d0dom",
    "LIS": "lis",
    "pDockQ": "pdockq",
    "pDockQ2": "pdockq2",
}
PROTEINS_ONLY = ("pdockq", "pdockq2")
# Its place in a printed line.
PRINTED = {"ipsae_d0res": 5, "ipsae_d0chn": 6, "ipsae_d0dom": 7, "pdockq": 10, "pdockq2": 11}
PRINTED |= {"lis": 12}


def test_ipsae_on_generated_complexes(
    cases: list[ScoredCase],
    folders: list[Path],
    run: Run,
    source: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    exact = Differences("ipsae.py 4", f"{len(cases)} complexes")
    printed = Differences("ipsae.py 4, printed", f"{len(cases)} complexes")
    for case, folder in zip(cases, folders, strict=True):
        model = folder / f"{case.name}_model_0.cif"
        pae = folder / f"pae_{case.name}_model_0.npz"
        script = source("ipsae.py")
        variables = ipsae_variables(run, script, (pae, model, "10", "10"), tmp_path / "out.json")
        polymers = [c for c in case.case.layout.chain_names if case.kind(c) != "ligand"]
        assert set(variables["LIS"]) == set(polymers)
        lines = printed_scores(model.with_name(f"{model.stem}_10_10.txt"))
        for (a, b), row in case.pairs.items():
            if a not in polymers or b not in polymers:
                continue
            for variable, column in VARIABLES.items():
                if column in PROTEINS_ONLY and row[column] is None:
                    assert {case.kind(a), case.kind(b)} != {"protein"}
                    continue
                ours = row[column]
                exact.add(column, ours, variables[variable][a][b])
                printed.add(column, ours, lines[a, b][column])
    exact.check(1e-6)
    printed.check(5.1e-5, {name: 6e-7 for name in VARIABLES.values() if name.startswith("ipsae")})


def ipsae_variables(
    run: Run, script: Path, arguments: tuple[Path | str, ...], out: Path
) -> dict[str, dict[str, dict[str, float]]]:
    """The script's variables after its run, unrounded: name -> chain -> chain -> value."""
    names = ",".join(VARIABLES)
    run("python", SCRIPTS / "with_variables.py", out, names, script, *arguments)
    return json.loads(out.read_text())


def printed_scores(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    """(chain, chain) -> our column -> the printed score of this direction."""
    lines = [line.split() for line in path.read_text().splitlines() if " asym " in line]
    return {
        (words[0], words[1]): {column: float(words[i]) for column, i in PRINTED.items()}
        for words in lines
    }
