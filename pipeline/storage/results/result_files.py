"""Files of a prediction: the structures of its samples, and matrices on request."""

from __future__ import annotations

from functools import partial

from foldcp.features.layout import Layout
from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.storage.filesystem import Content
from foldcp.pipeline.storage.results.boltz_layout import (
    boltz_files,
    file_stem,
    write_array,
)
from foldcp.pipeline.storage.results.provenance import Provenance
from foldcp.pipeline.storage.results.result_rows import (
    DEFAULT,
    structure_folder,
    structure_path,
    written_samples,
)
from foldcp.predict import Prediction
from foldcp.structure.predicted import PredictedStructure
from foldcp.structure.write import write_structure


def result_files(
    task: Task,
    layout: Layout,
    prediction: Prediction,
    provenance: Provenance,
    write: WriteConfig = DEFAULT,
) -> dict[str, Content]:
    """Path in the run's folder -> content: structures and matrices of the samples that `write` asks
    for.

    `pae`, `pde` and `boltz` need a prediction that kept these matrices.
    """
    structures = [
        _structure(task, layout, prediction, provenance, sample)
        for sample in range(len(prediction.scores))
    ]
    files: dict[str, Content] = {}
    for sample in written_samples(prediction, write):
        if write.structures != "none":
            files[structure_path(task.key, sample, write)] = partial(
                write_structure, structure=structures[sample], format=write.structures
            )
        for name in ("pae", "pde"):
            if name in write.files:
                matrix = getattr(prediction, name)[sample]
                path = f"{structure_folder(task.key)}/{sample}_{name}.npz"
                files[path] = partial(write_array, name=name, array=matrix)
    if "boltz" in write.files:
        stem = file_stem(task.name, task.key, task.name in provenance.repeated)
        files |= boltz_files(stem, structures, prediction, write_pde="pde" in write.files)
    return files


def _structure(
    task: Task, layout: Layout, prediction: Prediction, provenance: Provenance, sample: int
) -> PredictedStructure:
    """One sample with all that its file says."""
    details = f"foldcp, weights {provenance.checkpoint}"
    if provenance.untrained:
        details += ": random weights, the structure means nothing"
    known = {
        "seed": provenance.seed,
        "sample": sample,
        "ranks": provenance.num_ranks,
        "precision": provenance.precision,
        "MSA rows": provenance.max_rows,
    }
    return PredictedStructure(
        layout=layout,
        coords=prediction.coords[sample],
        plddt=prediction.plddt[sample],
        name=task.name,
        title=task.complex.title,
        details=details,
        scores=prediction.scores[sample],
        weights=provenance.checkpoint,
        parameters={name: value for name, value in known.items() if value is not None},
    )
