"""Files of a prediction: the structures of its samples, and matrices on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from foldcp.checkpoint.identity import weights_warning
from foldcp.features.layout import Layout
from foldcp.metrics.chains import ChainSpans
from foldcp.metrics.interface.pae_blocks import PaeBlock, kept_chain_pairs
from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.storage.filesystem import Content
from foldcp.pipeline.storage.results.boltz_layout import (
    boltz_files,
    file_stem,
    write_array,
)
from foldcp.pipeline.storage.results.pae_file import write_pae
from foldcp.pipeline.storage.results.provenance import Provenance
from foldcp.pipeline.storage.results.result_rows import (
    DEFAULT,
    pae_path,
    structure_folder,
    structure_path,
    written_samples,
)
from foldcp.predict import Prediction
from foldcp.structure.predicted import PredictedStructure
from foldcp.structure.write import write_structure

PaeBlocks = Callable[[int], Iterable[PaeBlock]]  # sample -> the blocks of all ranks


def no_blocks(sample: int) -> Iterable[PaeBlock]:
    """No PAE."""
    return ()


def result_files(
    task: Task,
    layout: Layout,
    prediction: Prediction,
    provenance: Provenance,
    write: WriteConfig = DEFAULT,
    pae_blocks: PaeBlocks = no_blocks,
) -> dict[str, Content]:
    """Path in the run's folder -> content: structures and matrices of the samples that `write` asks
    for.

    `pde` and `boltz` need a prediction that kept these matrices; `pae_blocks` are those that all
    ranks have kept of a sample.
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
        if write.num_pae_pairs:
            kept = kept_chain_pairs(write.num_pae_pairs, prediction.scores[sample])
            files[pae_path(task.key, sample)] = partial(
                _write_pae, layout=layout, kept=kept, pae_blocks=pae_blocks, sample=sample
            )
        if "pde" in write.files:
            path = f"{structure_folder(task.key)}/{sample}_pde.npz"
            files[path] = partial(write_array, name="pde", array=prediction.pde[sample])
    if "boltz" in write.files:
        stem = file_stem(task.name, task.key, task.name in provenance.repeated)
        files |= boltz_files(stem, structures, prediction, write_pde="pde" in write.files)
    return files


def _write_pae(
    path: Path,
    layout: Layout,
    kept: Bool[np.ndarray, "C C"],
    pae_blocks: PaeBlocks,
    sample: int,
) -> None:
    """Write the PAE of one sample, whose blocks are fetched only now."""
    starts = ChainSpans.of(layout).starts
    write_pae(path, layout.chain_names, starts, kept, pae_blocks(sample))


def _structure(
    task: Task, layout: Layout, prediction: Prediction, provenance: Provenance, sample: int
) -> PredictedStructure:
    """One sample with all that its file says."""
    details = f"foldcp, weights {provenance.checkpoint}"
    if warning := weights_warning(provenance.checkpoint):
        details += f", {warning}"
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
