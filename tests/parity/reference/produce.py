"""Runs Boltz and writes files; imported only when a file is missing, since importing Boltz takes
a while.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from boltz.model.models.boltz2 import Boltz2
from boltz.model.optim.ema import EMA
from cases import CASES, INPUTS, LOSSES, STEERED, TRAINING
from features import featurise
from gradients import gradients
from precision import bf16_mixed
from prediction import load_model, predict
from rdkit import Chem
from saving import save
from steering import steering
from train.data import data
from train.losses import losses
from train.step import load_model as load_training_model
from train.step import training

Chem.SetDefaultPickleProperties(Chem.PropertyPickleOptions.AllProps)
torch.set_num_threads(len(os.sched_getaffinity(0)))
torch.use_deterministic_algorithms(True)


def write_features(name: str, mols: Path, out: Path) -> None:
    with torch.no_grad():
        save(featurise(INPUTS[name], mols), out)


def _batch(features: Path) -> dict[str, Any]:
    """The batch with the types that Boltz gives it."""
    saved = torch.load(features, weights_only=True)
    return {name: x.to(saved["types"][name]) for name, x in saved["feats"].items()}


def write_prediction(name: str, ckpt: Path, features: Path, out: Path) -> None:
    case = CASES[name]
    with torch.no_grad():
        save(predict(load_model(ckpt, case), _batch(features), case), out)


def write_precision(name: str, ckpt: Path, features: Path, fp32: Path, out: Path) -> None:
    """The prediction in bf16-mixed, from the draws in fp32."""
    case = CASES[name]
    with torch.no_grad(), bf16_mixed():
        mixed = predict(load_model(ckpt, case), _batch(features), case)
    plain = torch.load(fp32, weights_only=True)["sample"]
    assert all(
        torch.equal(mixed["sample"][drawn], plain[drawn])
        for drawn in ("init_noise", "rotation", "eps")
    )
    kept = {"s": mixed["s"], "z": mixed["z"], "coords": mixed["sample"]["coords"]}
    kept |= {measure: mixed["confidence"][measure] for measure in ("plddt", "pae")}
    save({measure: x.float() for measure, x in kept.items()}, out)


def write_gradients(name: str, ckpt: Path, features: Path, out: Path) -> None:
    save(gradients(load_model(ckpt, CASES[name]), _batch(features)), out)


def write_steering(name: str, ckpt: Path, features: Path, out: Path) -> None:
    case = STEERED[name]
    with torch.no_grad():
        save(steering(load_model(ckpt, case), _batch(features), case), out)


def write_training(name: str, ckpt: Path, features: Path, out: Path) -> None:
    case = TRAINING[name]
    save(training(load_training_model(ckpt, case), _batch(features), case), out)


def write_losses(name: str, source: Path, out: Path) -> None:
    case = LOSSES[name]
    save(losses(case, None if case.code else _batch(source)), out)


def write_data(out: Path) -> None:
    torch.save(data(), out)


def write_weights(ckpt: Path, out: Path) -> None:
    """The tensors of Boltz's network; the averages where the file has them."""
    network = Boltz2.load_from_checkpoint(ckpt, strict=True, map_location="cpu")
    if "ema" in (stored := torch.load(ckpt, weights_only=False)):
        average = EMA()
        average.load_state_dict(stored["ema"])
        average.replace_model_weights(network)
    torch.save(dict(network.state_dict()), out)
