"""A fold in the layout of Boltz 2.2.1's output folder, for the tools that read it.

    predictions/<name>/<name>_model_<rank>.cif
                       confidence_<name>_model_<rank>.json
                       plddt_<name>_model_<rank>.npz    plddt [T], 0..1
                       pae_<name>_model_<rank>.npz      pae [T, T] in Å, [i, j]: error of token j from the frame of i
                       pde_<name>_model_<rank>.npz      pde [T, T] in Å, on request

Rank 0 is the sample with the highest confidence score. In the JSON, `pair_chains_iptm[i][j]` has its frames in chain j
and its scored tokens in chain i, the other way round than our [a, b]; chains are numbered from "0" in input order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from foldcp.features import Layout
from foldcp.metrics import Scores
from foldcp.predict import Prediction
from foldcp.structure import write_cif

SUMMARY = (
    "confidence_score",
    "ptm",
    "iptm",
    "ligand_iptm",
    "protein_iptm",
    "complex_plddt",
    "complex_iplddt",
    "complex_pde",
    "complex_ipde",
)


def boltz_files(
    name: str, layout: Layout, prediction: Prediction, details: str = "", write_pde: bool = False
) -> dict[str, bytes | Callable[[Path], None]]:
    """Path -> content, or what writes it. The prediction needs its whole PAE, and its whole PDE for `write_pde`."""
    stem = file_stem(name)
    num_samples = len(prediction.scores)
    assert len(prediction.pae) == num_samples and (len(prediction.pde) == num_samples or not write_pde)
    files: dict[str, bytes | Callable[[Path], None]] = {}
    for rank, sample in enumerate(ranking(prediction.scores)):
        plddt = prediction.plddt[sample]
        folder, model = f"predictions/{stem}", f"{stem}_model_{rank}"
        files[f"{folder}/{model}.cif"] = partial(
            write_cif, layout=layout, coords=prediction.coords[sample], plddt=plddt, name=name, details=details
        )
        files[f"{folder}/confidence_{model}.json"] = json.dumps(summary(prediction.scores[sample]), indent=4).encode()
        files[f"{folder}/plddt_{model}.npz"] = partial(write_array, name="plddt", array=plddt)
        files[f"{folder}/pae_{model}.npz"] = partial(write_array, name="pae", array=prediction.pae[sample])
        if write_pde:
            files[f"{folder}/pde_{model}.npz"] = partial(write_array, name="pde", array=prediction.pde[sample])
    return files


def ranking(scores: Sequence[Scores]) -> list[int]:
    """Samples from the highest confidence score to the lowest; the earlier of two equal ones first."""
    return np.argsort([-score.confidence_score for score in scores], kind="stable").tolist()


def summary(scores: Scores) -> dict[str, Any]:
    """The confidence JSON of one sample."""
    pairs = scores.pair_iptm_boltz.T.tolist()
    return {
        **{name: getattr(scores, name) for name in SUMMARY},
        "chains_ptm": {str(i): row[i] for i, row in enumerate(pairs)},
        "pair_chains_iptm": {str(i): {str(j): x for j, x in enumerate(row)} for i, row in enumerate(pairs)},
    }


def file_stem(name: str) -> str:
    """The name as part of a file name: anything but letters, digits and `._+-` becomes `_`."""
    return re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "_"


def write_array(path: Path, name: str, array: Float[np.ndarray, "..."]) -> None:
    """One named float32 array as a compressed npz file."""
    arrays: dict[str, Any] = {name: array.astype(np.float32)}
    with path.open("wb") as file:  # given a path, numpy would append .npz
        np.savez_compressed(file, **arrays)
