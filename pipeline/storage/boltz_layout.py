"""A fold in the layout of Boltz 2.2.1's output folder, for the tools that read it.

    predictions/<stem>/<stem>_model_<rank>.cif
                       confidence_<stem>_model_<rank>.json plddt_<stem>_model_<rank>.npz    plddt
                       [T], 0..1 pae_<stem>_model_<rank>.npz      pae [T, T] in Å, [i, j]: error of
                       token j from the frame of i pde_<stem>_model_<rank>.npz      pde [T, T] in Å,
                       on request

The stem is the complex's name, where that can be the name of a file (see `file_stem`). Rank 0 is
the sample with the highest confidence score. In the JSON, `pair_chains_iptm[i][j]` has its frames
in chain j and its scored tokens in chain i, the other way round than our [a, b]; chains are
numbered from "0" in input order.
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

from foldcp.features.layout import Layout
from foldcp.metrics.scores import Scores
from foldcp.predict import Prediction
from foldcp.structure import write_cif

# characters of a stem, and of the key in it
MAX_STEM = 100
KEY_PIECE = 8
PLAIN_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*")
CHANGED_NAME = re.compile(r"-[0-9a-f]{8}\Z")
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
    name: str,
    stem: str,
    layout: Layout,
    prediction: Prediction,
    details: str = "",
    write_pde: bool = False,
) -> dict[str, bytes | Callable[[Path], None]]:
    """Path -> content, or what writes it; `stem` is from `file_stem`. The prediction needs its
    whole PAE, and its whole PDE for `write_pde`.
    """
    num_samples = len(prediction.scores)
    assert len(prediction.pae) == num_samples and (
        len(prediction.pde) == num_samples or not write_pde
    )
    files: dict[str, bytes | Callable[[Path], None]] = {}
    for rank, sample in enumerate(ranking(prediction.scores)):
        plddt = prediction.plddt[sample]
        folder = f"predictions/{stem}"
        model = f"{stem}_model_{rank}"
        files[f"{folder}/{model}.cif"] = partial(
            write_cif,
            layout=layout,
            coords=prediction.coords[sample],
            plddt=plddt,
            name=name,
            details=details,
        )
        files[f"{folder}/confidence_{model}.json"] = json.dumps(
            summary(prediction.scores[sample]), indent=4
        ).encode()
        files[f"{folder}/plddt_{model}.npz"] = partial(write_array, name="plddt", array=plddt)
        files[f"{folder}/pae_{model}.npz"] = partial(
            write_array, name="pae", array=prediction.pae[sample]
        )
        if write_pde:
            files[f"{folder}/pde_{model}.npz"] = partial(
                write_array, name="pde", array=prediction.pde[sample]
            )
    return files


def ranking(scores: Sequence[Scores]) -> list[int]:
    """Samples from the highest confidence score to the lowest; the earlier of two equal ones
    first.
    """
    return np.argsort([-score.confidence_score for score in scores], kind="stable").tolist()


def summary(scores: Scores) -> dict[str, Any]:
    """The confidence JSON of one sample."""
    pairs = scores.pair_iptm_boltz.T.tolist()
    return {
        **{name: getattr(scores, name) for name in SUMMARY},
        "chains_ptm": {str(i): row[i] for i, row in enumerate(pairs)},
        "pair_chains_iptm": {
            str(i): {str(j): x for j, x in enumerate(row)} for i, row in enumerate(pairs)
        },
    }


def file_stem(name: str, key: str, is_repeated: bool = False) -> str:
    """A name of at most 100 ASCII characters for files, different for different names.

    A name of letters, digits and `._+-` stays as it is. Of any other, and of one that is too long,
    is hidden by its first dot, could be taken for a changed one or is the name of several
    complexes, what does not fit is replaced and a piece of the result's key, which is a hash of the
    name among others, follows.
    """
    if (
        not is_repeated
        and len(name) <= MAX_STEM
        and PLAIN_NAME.fullmatch(name)
        and not CHANGED_NAME.search(name)
    ):
        return name
    plain = re.sub(r"[^A-Za-z0-9._+-]", "_", name).lstrip(".")
    return f"{plain[: MAX_STEM - 1 - KEY_PIECE] or '_'}-{key[:KEY_PIECE]}"


def write_array(path: Path, name: str, array: Float[np.ndarray, "..."]) -> None:
    """One named float32 array as a compressed npz file."""
    arrays: dict[str, Any] = {name: array.astype(np.float32)}
    with path.open("wb") as file:  # given a path, numpy would append .npz
        np.savez_compressed(file, **arrays)
