"""DockQ of the pairs of files in a folder, as JSON; a program for an environment with DockQ."""

from __future__ import annotations

import json
import sys
from pathlib import Path

MEASURES = ("DockQ", "fnat", "fnonnat", "iRMSD", "LRMSD")


def measures(model_path: Path, native_path: Path) -> dict[str, dict[str, float]]:
    """Names of two chains -> measure -> value; chains of equal names belong together."""
    from DockQ.DockQ import load_PDB, run_on_all_native_interfaces

    model = load_PDB(str(model_path))
    native = load_PDB(str(native_path))
    names = {chain.id: chain.id for chain in native}
    found, _ = run_on_all_native_interfaces(model, native, chain_map=names)
    return {
        pair: {name: float(scores[name]) for name in MEASURES} for pair, scores in found.items()
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    models = sorted(folder.glob("*.model.cif"))
    cases = {path.name.removesuffix(".model.cif"): path for path in models}
    values = {name: measures(p, folder / f"{name}.native.cif") for name, p in cases.items()}
    json.dump(values, sys.stdout)
