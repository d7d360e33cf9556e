"""Validation while training: sampled structures beside experimental ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foldcp.distributed.mesh import Mesh
from foldcp.model.boltz2 import Boltz2
from foldcp.pipeline.evaluation.sample import Reference, evaluate_sample
from foldcp.pipeline.training.settings_file import TrainFile
from foldcp.pipeline.training.structures import structure_of
from foldcp.predict import Prediction, Settings, fold
from foldcp.training.data.dataset import TrainingDataset
from foldcp.training.example import TrainingExample
from foldcp.training.loop.settings import TrainSettings

MIN_IDENTITY = 0.8  # of chains that are compared: they are the same
Row = dict[str, Any]


@dataclass(frozen=True)
class ValidationSet:
    """Examples of one split."""

    split: str
    dataset: TrainingDataset
    names: Sequence[str]


@dataclass(frozen=True)
class Validation:
    """Folds the examples of some sets, each context group its share of them."""

    sets: Sequence[ValidationSet]
    settings: TrainSettings
    mesh: Mesh
    report: Callable[[Sequence[Row], int], None]  # on the first rank

    def __call__(self, model: Boltz2, step: int) -> None:
        """Fold, compare, report. Collective."""
        own = [row | {"step": step} for row in self._rows(model)]
        is_first = self.mesh.cp.rank == 0
        gathered = self.mesh.gather_objects(own if is_first else [])
        if self.mesh.rank == 0:
            self.report([row for rows in gathered for row in rows], step)

    def _rows(self, model: Boltz2) -> Iterator[Row]:
        numbered = [(chosen, name) for chosen in self.sets for name in chosen.names]
        for chosen, name in numbered[self.mesh.data_rank :: self.mesh.data_size]:
            example = chosen.dataset.example(name)
            prediction = fold(model, example.features, self._fold_settings())
            yield {"name": name, "split": chosen.split, **compare(example, prediction)}

    def _fold_settings(self) -> Settings:
        validation = self.settings.validation
        return Settings(
            recycling=validation.recycling,
            steps=validation.sampling_steps,
            precision="mixed" if self.settings.precision == "bf16" else "fp32",
        )


def chosen_sets(settings: TrainFile, dataset: TrainingDataset) -> list[ValidationSet]:
    """The examples that the settings choose: held-out ones, and some of the training set.

    Raises ValueError when the data have no structure that is held out.
    """
    validation = settings.validation
    folder = Path(settings.data.folder)
    try:
        held_out = TrainingDataset(folder, settings.data.examples, "held-out")
    except ValueError as error:
        raise ValueError(f"{error}; validation.every=0 trains without validation") from None
    sets = [_chosen("held-out", held_out, validation.examples, validation.max_tokens)]
    if validation.training_examples:
        sets.append(_chosen("train", dataset, validation.training_examples, validation.max_tokens))
    return sets


def _chosen(split: str, dataset: TrainingDataset, most: int, max_tokens: int) -> ValidationSet:
    """Up to `most` examples (0: all) that are not too large (0: of any size), evenly spread over
    the names in order.
    """
    names = [
        name for name in dataset.names if not max_tokens or dataset.num_tokens(name) <= max_tokens
    ]
    count = len(names) if not most else min(most, len(names))
    chosen = [names[i * len(names) // count] for i in range(count)]
    return ValidationSet(split, dataset, chosen)


def compare(example: TrainingExample, prediction: Prediction) -> Row:
    """Measures of the first sample beside the example's structure; None where there is nothing to
    measure, and for what evaluation cannot compare.
    """
    layout = example.features.layout
    num_atoms = len(layout.atom_token)
    resolved = example.truth.resolved[:num_atoms].numpy() > 0
    reference = structure_of(layout, example.truth.coords[:num_atoms].numpy(), resolved)
    predicted = structure_of(layout, prediction.coords[0], np.ones(num_atoms, bool))
    found = evaluate_sample(predicted, Reference(reference), MIN_IDENTITY)
    columns = found.columns
    return {
        "tokens": len(layout.token_chain),
        "lddt": _known(columns["lddt"]),
        "interface_lddt": _known(columns["interface_lddt"]),
        "dockq": _known(columns["dockq_mean"]),
        "irmsd": _mean(found.interfaces, "irmsd"),
        "tm_score": _known(columns["tm_score"]),
        "confidence_score": float(prediction.scores[0].confidence_score),
        "plddt": float(prediction.plddt[0].mean()),
    }


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(rows: Sequence[Mapping[str, Any]], column: str) -> float | None:
    values = [row[column] for row in rows if column in row and np.isfinite(row[column])]
    return float(np.mean(values)) if values else None
