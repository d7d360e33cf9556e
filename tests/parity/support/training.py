"""A training step on the random numbers that Boltz drew, and its example in our types."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foldcp.training.example import TrainingExample, Truth
from foldcp.training.randomness import DiffusionNoise
from tests.parity.support.oracle import Oracle, ReplayedNoise, features_of

DEVICE = torch.device("cpu")


class ReplayedRandomness:
    """What Boltz drew, in its order."""

    def __init__(self, record: dict[str, Any], recycling: int) -> None:
        self.record = record
        self.uniform = list(record["uniform"])
        self.number = recycling

    def recycling(self, most: int) -> int:
        return self.number

    def kept(self, share: float, *shape: int) -> Tensor:
        return (self.uniform.pop(0).reshape(shape) >= 1 - share).float()

    def msa_rows(self, num_rows: int, count: int) -> list[int]:
        raise NotImplementedError("all rows are used")

    def diffusion(self, num_samples: int, num_atoms: int) -> DiffusionNoise:
        return DiffusionNoise(**self.record["diffusion"])

    def sampler(self, num_samples: int, num_atoms: int) -> ReplayedNoise:
        return ReplayedNoise(self.record["sample"], DEVICE)


def example_of(oracle: Oracle, name: str, truth: dict[str, Tensor]) -> TrainingExample:
    """Boltz's features of an input, with the structure that was made up for it."""
    return TrainingExample(
        features=features_of(oracle.batch(name)[0]),
        truth=Truth(
            conformers=truth["coords"][0],
            resolved=truth["atom_resolved_mask"][0],
            bfactors=truth["bfactor"][0],
            lddt_atoms=truth["lddt_atoms"].long(),
        ),
    )
