"""Files in the layout of Boltz 2.2.1's output folder, for tools that read it.

    predictions/<stem>/<stem>_model_<rank>.cif
                       confidence_<stem>_model_<rank>.json
                       plddt_<stem>_model_<rank>.npz    plddt [T], 0..1
                       pae_<stem>_model_<rank>.npz      pae [T, T] in Å, [i, j]: error of token j
                                                        from the frame of i
                       pde_<stem>_model_<rank>.npz      pde [T, T] in Å, on request

The stem is the complex's name, where that can be the name of a file (see `file_stem`). Rank 0 is
the sample with the highest confidence score. In the JSON, `pair_chains_iptm[i][j]` has its frames
in chain j and its scored tokens in chain i, the other way round than our [a, b]; chains are
numbered from "0" in input order.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from foldcp.metrics.scores import Scores
from foldcp.pipeline.storage.filesystem import Content

if TYPE_CHECKING:  # the names of files and scores need no torch
    from foldcp.predict import Prediction
    from foldcp.structure.predicted import PredictedStructure

MAX_STEM_LENGTH = 100
KEY_DIGITS = 8  # of the key in a stem
PLAIN_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*")
ENDS_IN_KEY = re.compile(r"-[0-9a-f]{8}\Z")
COMPLEX_SCORES = (
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
# Boltz gives 0 where one of these does not apply, as with one chain.
NONE_IS_ZERO = ("iptm", "ligand_iptm", "protein_iptm", "complex_ipde")


def boltz_files(
    stem: str,
    structures: Sequence[PredictedStructure],
    prediction: Prediction,
    write_pde: bool = False,
) -> dict[str, Content]:
    """Path -> content of every file.

    `structures` are the samples of the prediction; `stem` is from `file_stem`. The prediction needs
    its whole PAE, and its whole PDE for `write_pde`.
    """
    from foldcp.structure.write import write_structure

    num_samples = len(prediction.scores)
    assert len(prediction.pae) == num_samples
    assert len(prediction.pde) == num_samples or not write_pde
    folder = f"predictions/{stem}"
    files: dict[str, Content] = {}
    for rank, sample in enumerate(ranking(prediction.scores)):
        model = f"{stem}_model_{rank}"
        files[f"{folder}/{model}.cif"] = partial(write_structure, structure=structures[sample])
        summary = json.dumps(confidence_summary(prediction.scores[sample]), indent=4)
        files[f"{folder}/confidence_{model}.json"] = summary.encode()
        arrays = {"plddt": prediction.plddt[sample], "pae": prediction.pae[sample]}
        if write_pde:
            arrays["pde"] = prediction.pde[sample]
        for kind, array in arrays.items():
            files[f"{folder}/{kind}_{model}.npz"] = partial(write_array, name=kind, array=array)
    return files


def ranking(scores: Sequence[Scores]) -> list[int]:
    """Samples from the highest confidence score to the lowest; of equal ones the earlier first."""
    return np.argsort([-score.confidence_score for score in scores], kind="stable").tolist()


def confidence_summary(scores: Scores) -> dict[str, Any]:
    """The confidence JSON of one sample."""
    pairs = scores.pair_iptm_boltz.T.tolist()
    return {
        **{name: as_boltz(name, getattr(scores, name)) for name in COMPLEX_SCORES},
        "chains_ptm": {str(i): row[i] for i, row in enumerate(pairs)},
        "pair_chains_iptm": {
            str(i): {str(j): value for j, value in enumerate(row)} for i, row in enumerate(pairs)
        },
    }


def as_boltz(name: str, value: float | None) -> float:
    """A score of the complex; 0 where it does not apply, but NaN where Boltz has no 0 either."""
    if value is None or math.isnan(value):
        return 0.0 if name in NONE_IS_ZERO else math.nan
    return value


def file_stem(name: str, key: str, is_repeated: bool = False) -> str:
    """A file name without suffix, of at most 100 ASCII characters, different for each name.

    A name of letters, digits and `._+-` stays as it is. In any other, other characters are
    replaced and the first digits of the result's key, which is a hash of the name among others, are
    appended. So are they to a name that is too long, that begins with a dot, that ends as if digits
    of a key were appended, or that several complexes share (`is_repeated`).
    """
    if (
        not is_repeated
        and len(name) <= MAX_STEM_LENGTH
        and PLAIN_NAME.fullmatch(name)
        and not ENDS_IN_KEY.search(name)
    ):
        return name
    plain = re.sub(r"[^A-Za-z0-9._+-]", "_", name).lstrip(".")
    max_length = MAX_STEM_LENGTH - 1 - KEY_DIGITS
    return f"{plain[:max_length] or '_'}-{key[:KEY_DIGITS]}"


def write_array(path: Path, name: str, array: Float[np.ndarray, "..."]) -> None:
    """Write one named float32 array as a compressed npz file."""
    arrays: dict[str, Any] = {name: array.astype(np.float32)}
    with path.open("wb") as file:  # given a path, numpy would append .npz
        np.savez_compressed(file, **arrays)
