"""Steering by Boltz: energies and gradients of its potentials, and predictions with their draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from unittest.mock import patch

import pytorch_lightning
import torch
from boltz.main import BoltzSteeringParams
from boltz.model.models.boltz2 import Boltz2
from boltz.model.potentials.potentials import get_potentials
from cases import Case
from prediction import SEED, sampling, whole_outputs
from saving import in_and_out, recorded_calls, recorded_draws
from torch import Tensor

TIMES = (1.0, 0.7, 0.38, 0.05)


def steering(model: Boltz2, feats: dict[str, Tensor], case: Case) -> dict[str, Any]:
    """With all potentials, and with those alone that are always on."""
    return {
        **judged(feats),
        "steered": steered(model, feats, case, potentials=True),
        "guided": steered(model, feats, case, potentials=False),
    }


def judged(feats: dict[str, Tensor]) -> dict[str, Any]:
    """Energies and gradients of two structures that keep no bound, at several times of the
    sampler.
    """
    generator = torch.Generator().manual_seed(1234)
    x = 6 * torch.randn((2, feats["atom_pad_mask"].shape[1], 3), generator=generator)
    said = []
    for potential in get_potentials(switches(potentials=True), boltz2=True):
        for time in TIMES:
            parameters = potential.compute_parameters(time)
            if potential.compute_args(feats, parameters)[0].shape[1]:
                energy = potential.compute(x, feats, parameters)
                gradient = potential.compute_gradient(x, feats, parameters)
                weights = [
                    float(parameters[name]) for name in ("guidance_weight", "resampling_weight")
                ]
                said.append(
                    {
                        "name": type(potential).__name__,
                        "time": time,
                        "energy": energy,
                        "gradient": gradient,
                        "interval": parameters["guidance_interval"],
                        "weights": torch.tensor(weights),
                    }
                )
    return {"structures": x, "potentials": said}


def switches(potentials: bool) -> dict[str, Any]:
    """The arguments of `boltz predict`, with `--use_potentials` or without."""
    steering = BoltzSteeringParams()
    steering.fk_steering = steering.physical_guidance_update = potentials
    return asdict(steering)


def steered(
    model: Boltz2, feats: dict[str, Tensor], case: Case, potentials: bool
) -> dict[str, Any]:
    """A prediction: its trunk, its draws and its coordinates."""
    pytorch_lightning.seed_everything(SEED, verbose=False)
    with (
        patch.object(model, "steering_args", switches(potentials)),
        recorded_calls(model, {"input_embedder"}, in_and_out) as calls,
        whole_outputs(model) as outs,
        recorded_draws() as draws,
        recorded_choices() as choices,
    ):
        assert not model.predict_step(dict(feats), 0)["exception"]
    (out,) = outs
    return {
        "s_inputs": calls["input_embedder"]["out"][0],
        "s": out["s"],
        "z": out["z"],
        "sample": sampling(model, draws, case) | choices | {"coords": out["sample_atom_coords"]},
    }


@contextmanager
def recorded_choices() -> Iterator[dict[str, list[Tensor]]]:
    """The weights that torch.multinomial was given, and what it drew."""
    log: dict[str, list[Tensor]] = {"weights": [], "chosen": []}
    draw = torch.multinomial

    def call(weights: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = draw(weights, *args, **kwargs)
        log["weights"].append(weights.clone())
        log["chosen"].append(out.clone())
        return out

    with patch.object(torch, "multinomial", call):
        yield log
