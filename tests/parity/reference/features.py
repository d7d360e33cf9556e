"""The features that `boltz predict` makes of an input."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch
from boltz.data.module.inferencev2 import Boltz2InferenceDataModule, collate
from boltz.data.types import Manifest
from boltz.main import process_inputs
from cases import Input
from mended import mended
from saving import recorded_draws
from torch import Tensor

SEED = 0


def featurise(source: Input, mols: Path) -> dict[str, Any]:
    """{"feats": the collated batch, "types": its types, "draws": the motions of the conformers}."""
    os.chdir(source.path.parent)  # Boltz resolves the paths in a YAML against the working directory
    with (
        tempfile.TemporaryDirectory() as folder,
        mended() if source.mended else contextlib.nullcontext(),
    ):
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            dataset = _dataset(source, mols, Path(folder))
        pytorch_lightning.seed_everything(SEED, verbose=False)
        with recorded_draws() as log:
            batch = collate([dataset[0]])
    draws = {"rotation": log["random_rotations"], "translation": log["randn_like"]}
    feats = {name: x for name, x in batch.items() if isinstance(x, Tensor)}
    return {
        "feats": feats,
        "types": {name: x.dtype for name, x in feats.items()},
        "draws": {name: torch.cat(drawn) for name, drawn in draws.items() if drawn},
    }


def _dataset(source: Input, mols: Path, folder: Path) -> Any:
    process_inputs(
        data=[source.path],
        out_dir=folder,
        ccd_path=None,
        mol_dir=mols,
        msa_server_url="",
        msa_pairing_strategy="greedy",
        boltz2=True,
    )
    done = folder / "processed"
    manifest = Manifest.load(done / "manifest.json")
    assert manifest.records, f"Boltz could not process {source.path.name}"
    module = Boltz2InferenceDataModule(
        manifest=manifest,
        target_dir=done / "structures",
        msa_dir=done / "msa",
        mol_dir=mols,
        num_workers=0,
        constraints_dir=done / "constraints",
        template_dir=done / "templates",
        extra_mols_dir=done / "mols",
        override_method=source.method or None,
    )
    return module.predict_dataloader().dataset
