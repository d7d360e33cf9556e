"""The whole PAE of a sample, where a run has kept it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from foldcp.files import reading


def kept_pae(run: Path, structure: str) -> Float[np.ndarray, "T T"] | None:
    """The PAE in Å of a sample, [i, j]: error of token j in the frame of i; None where the run has
    not kept it. `structure` is the path of the sample's structure.

    Raises ValueError when the file is damaged.
    """
    path = (run / structure).with_name(f"{Path(structure).name.split('.')[0]}_pae.npz")
    if not path.is_file():
        return None
    with reading(str(path)):
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return arrays["pae"]
        except (zipfile.BadZipFile, KeyError, EOFError) as error:
            raise ValueError(f"{path}: damaged: {error}") from error
