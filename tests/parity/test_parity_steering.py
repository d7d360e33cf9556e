"""Potentials, guidance and the choice among particles, for any number of ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from foldcp.checkpoint.load import load
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.features.steering import steering_constraints
from foldcp.model.boltz2 import Boltz2
from foldcp.model.steering.steering import NUM_PARTICLES, Steering
from foldcp.model.steering.weighted_potentials import WeightedPotential, weighted_potentials
from tests.parity.support.cases import STEERED, Case
from tests.parity.support.forms import Share
from tests.parity.support.oracle import Oracle, ReplayedNoise, complex_of
from tests.parity.support.table import Measured, check, largest, relative, worst
from tests.parity.test_parity_modules import prepare
from tests.support.distributed import run

POTENTIAL = 1e-5
WEIGHT = 1e-4
ANGSTROM = 1e-3


def measure(cp: ContextParallel, oracle: Oracle, case: Case) -> list[Measured]:
    """All errors of one rank."""
    real = oracle.features(case.input)
    share = Share(cp, real.pad(cp.size), real.num_tokens)
    model = load(oracle.checkpoint(case.size), cp=cp)
    record = oracle.record("steering", case)
    with torch.inference_mode():
        potentials = potentials_of(case, share.features, potentials=True)
        return [
            *(potential_errors(potentials, record) if cp.size == 1 else []),  # it knows no ranks
            *steered(model, share, record["steered"], case, potentials, NUM_PARTICLES),
            *steered(
                model,
                share,
                record["guided"],
                case,
                potentials_of(case, share.features, potentials=False),
                1,
            ),
        ]


def potentials_of(case: Case, features: Features, potentials: bool) -> list[WeightedPotential]:
    return weighted_potentials(
        features, steering_constraints(complex_of(case.input), potentials=potentials)
    )


def potential_errors(potentials: list[WeightedPotential], record: dict[str, Any]) -> list[Measured]:
    """Energies, gradients and weights; the worst over the times."""
    names = list(dict.fromkeys(theirs["name"] for theirs in record["potentials"]))
    assert len(names) == len(potentials), f"Boltz has the potentials {names}"
    errors: dict[str, list[float]] = {}
    for theirs in record["potentials"]:
        weighted = potentials[names.index(theirs["name"])]
        x = record["structures"]
        time = theirs["time"]
        weights = torch.tensor([weighted.guidance_weight(time), weighted.resampling_weight(time)])
        assert weighted.guidance_interval == theirs["interval"]
        errors.setdefault(f"{theirs['name']}: weights", []).append(
            largest(weights, theirs["weights"])
        )
        energy = weighted.potential.energy(x, time)
        gradient = weighted.potential.gradient(x, time)
        errors.setdefault(f"{theirs['name']}: energy", []).append(
            relative(energy, theirs["energy"])
        )
        errors.setdefault(f"{theirs['name']}: gradient", []).append(
            relative(gradient, theirs["gradient"])
        )
    return [(name, max(measured), POTENTIAL) for name, measured in errors.items()]


class Replayed(ReplayedNoise):
    """Also Boltz's resampling; `errors` are those of our weights."""

    def __init__(self, sample: dict[str, Any]) -> None:
        super().__init__(sample, torch.device("cpu"))
        self.choices = iter(zip(sample["weights"], sample["chosen"], strict=True))
        self.errors: list[float] = []

    def resample(self, index: int, weights: Tensor, count: int) -> Tensor:
        theirs, chosen = next(self.choices)
        self.errors.append(largest(weights, theirs))
        assert chosen.shape == (len(weights), count)
        return chosen.long()


def steered(
    model: Boltz2,
    share: Share,
    record: dict[str, Any],
    case: Case,
    potentials: list[WeightedPotential],
    num_particles: int,
) -> list[Measured]:
    """The whole sampler with Boltz's random numbers, from Boltz's trunk.

    Where a bound is met rounding decides about a whole step: over 20 steps a change of the denoised
    structures by 1e-7 grows to some 1e-3 Å. Hence the case has few steps.
    """
    noise = Replayed(record["sample"])
    steer = Steering(potentials, num_particles, case.steps, noise.resample, share.cp)
    coords = model.structure_module.sample(
        prepare(model, share, record), case.steps, noise, steer=steer
    )
    assert next(noise.choices, None) is None
    real = share.features.atom_mask > 0
    name = "potentials" if num_particles > 1 else "forced contacts"
    error = largest(coords[:, real], record["sample"]["coords"][:, real])
    measured = [(f"sampling with {name} (largest error, Å)", error, ANGSTROM)]
    return (
        [*measured, ("weights of particles", max(noise.errors), WEIGHT)]
        if num_particles > 1
        else measured
    )


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("name", STEERED)
def test_steering_is_that_of_boltz(name: str, size: int, oracle: Oracle) -> None:
    check(worst(run(measure, size, oracle, STEERED[name]), name))
