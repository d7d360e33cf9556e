"""A run as the output folder of Boltz 2, `predictions/NAME/NAME_model_RANK.cif` and what goes with
it. `boltz_layout` says what a file holds.

Files of `write=boltz` are copied. Otherwise they are made of the tables and structures: pLDDT is
that of the B-factors, and the JSON lacks what the tables do not have, `chains_ptm` and the diagonal
of `pair_chains_iptm`.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

from foldcp.pipeline.exporting.kept_pae import kept_pae
from foldcp.pipeline.exporting.run_results import ComplexResult, Row, RunResults
from foldcp.pipeline.exporting.staged_folder import StagedFolder
from foldcp.pipeline.exporting.structure_text import structure_text, token_plddt
from foldcp.pipeline.storage.results.boltz_layout import COMPLEX_SCORES, as_boltz, write_array

NO_DIAGONAL = "no chains_ptm and no diagonal of pair_chains_iptm, which the tables do not have"
NO_PAE = "no pae_*.npz: the run has not kept the whole PAE"


def write_boltz_folder(results: RunResults, folder: StagedFolder) -> None:
    """Write the files of every complex that has structures."""
    for complex in results:
        own = [path for path in complex.files if path.startswith("predictions/")]
        for path in own:
            stem = path.split("/")[1]
            name = path.replace(stem, complex.stem)
            shutil.copyfile(results.run / path, folder.file(name))
        if not own:
            _write_complex(results, complex, folder)


def _write_complex(results: RunResults, complex: ComplexResult, folder: StagedFolder) -> None:
    samples = [row for row in complex.samples if row["structure"] is not None]
    if not samples:
        results.not_written.append((complex.name, "the run has no structure of it"))
        return
    results.notes[NO_DIAGONAL] += 1
    has_pae = False
    for row in samples:
        model = f"{complex.stem}_model_{row['rank']}"
        parent = f"predictions/{complex.stem}"
        text = structure_text(results.run / row["structure"])
        folder.file(f"{parent}/{model}.cif").write_text(text, encoding="ascii")
        summary = json.dumps(_summary(row, complex.interfaces_of(row["sample"])), indent=4)
        folder.file(f"{parent}/confidence_{model}.json").write_text(summary)
        write_array(folder.file(f"{parent}/plddt_{model}.npz"), "plddt", token_plddt(text))
        with kept_pae(results.run, row) as pae:
            if pae is not None:
                whole = pae.read(slice(None), slice(None))
                write_array(folder.file(f"{parent}/pae_{model}.npz"), "pae", whole)
                has_pae = True
    if not has_pae:
        results.notes[NO_PAE] += 1


def _summary(row: Row, interfaces: list[Row]) -> dict[str, Any]:
    """The confidence JSON of one sample; of a pair, the scored chain comes first."""
    pairs: dict[str, dict[str, float]] = {}
    for pair in interfaces:
        scored = pairs.setdefault(str(pair["chain_index_b"]), {})
        scored[str(pair["chain_index_a"])] = pair["iptm_boltz"]
    return {
        **{name: as_boltz(name, row[name]) for name in COMPLEX_SCORES},
        "pair_chains_iptm": pairs,
    }
