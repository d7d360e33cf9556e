"""Files of a prediction: the structure of every sample, and matrices on request."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from foldcp.features.layout import Layout
from foldcp.pipeline.config import ExtraFiles
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.storage.filesystem import Content
from foldcp.pipeline.storage.results.boltz_layout import (
    boltz_files,
    file_stem,
    write_array,
)
from foldcp.pipeline.storage.results.provenance import Provenance
from foldcp.pipeline.storage.results.result_rows import structure_path
from foldcp.predict import Prediction
from foldcp.structure import write_cif


def result_files(
    task: Task,
    layout: Layout,
    prediction: Prediction,
    provenance: Provenance,
    write: Sequence[ExtraFiles] = (),
) -> dict[str, Content]:
    """Path in the run's folder -> content: the structure of every sample, and what `write` asks
    for.

    `pae`, `pde` and `boltz` need a prediction that kept these matrices.
    """
    details = f"foldcp, weights {provenance.checkpoint}"
    if provenance.untrained:
        details += ": random weights, the structure means nothing"
    files: dict[str, Content] = {}
    for sample, (coords, plddt) in enumerate(zip(prediction.coords, prediction.plddt, strict=True)):
        path = structure_path(task.key, sample)
        files[path] = partial(
            write_cif,
            layout=layout,
            coords=coords,
            plddt=plddt,
            name=task.name,
            title=task.complex.title or task.name,
            details=details,
        )
        for name in ("pae", "pde"):
            if name in write:
                matrix = getattr(prediction, name)[sample]
                matrix_path = path.replace(".cif", f"_{name}.npz")
                files[matrix_path] = partial(write_array, name=name, array=matrix)
    if "boltz" in write:
        stem = file_stem(task.name, task.key, task.name in provenance.repeated)
        files |= boltz_files(task.name, stem, layout, prediction, details, write_pde="pde" in write)
    return files
