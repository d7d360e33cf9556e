"""Losses on shards, and their gradients, are those of Boltz: on structures that are made up and on
experimental ones, in fp64 and fp32.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.training.assignment import assign
from foldcp.training.example import Truth
from foldcp.training.losses.bfactor import bfactor_loss
from foldcp.training.losses.confidence import (
    EPSILON,
    Assigned,
    PairTargets,
    pair_error,
    plddt_loss,
    resolved_loss,
)
from foldcp.training.losses.diffusion import mse_loss, smooth_lddt_loss
from foldcp.training.losses.distogram import distogram_loss
from foldcp.training.losses.partial import total
from foldcp.training.settings import DiffusionLossSettings
from tests.parity.support.cases import LOSSES
from tests.parity.support.losses import features_of_case, truth_of_case
from tests.parity.support.oracle import Oracle
from tests.parity.support.table import Measured, check, worst
from tests.support.distributed import run

SIGMA_DATA = 16.0
ALLOWED = {"fp64": 1e-10, "fp32": 1e-5}
ALLOWED_GRADIENT = {"fp64": 1e-10, "fp32": 1e-4}
CHUNK_BYTES = 4 << 20


def measure(cp: ContextParallel, oracle: Oracle, name: str, precision: str) -> list[Measured]:
    record = oracle.record_of(f"losses of {name}")
    dtype = {"fp64": torch.float64, "fp32": torch.float32}[precision]
    features = features_of_case(record["feats"], cp.size)
    truth = truth_of_case(record["feats"], record["symmetries"], dtype)
    leaves = {
        name: x.to(dtype, copy=True).requires_grad_() for name, x in record["outputs"].items()
    }
    assigned = None
    if precision == "fp32":
        # Boltz also superposes the assigned truth; rounding then moves an error over the edge of
        # its bin here and there.
        assigned = Assigned(**record["fp32"]["assigned"])
    parts = losses(cp, features, truth, leaves, assigned)
    torch.stack(list(parts.values())).sum().backward()
    expected = record[precision]
    found = []
    for loss, theirs in expected["losses"].items():
        difference = abs(float(total(cp, parts[loss]).double() - theirs))
        error = difference / abs(float(theirs)) if theirs else difference
        found.append((f"{loss} loss, {precision}", error, ALLOWED[precision]))
    for output, theirs in expected["gradients"].items():
        gradient = leaves[output].grad
        assert gradient is not None
        ours = cp.all_reduce(gradient)
        difference = float((ours - theirs).norm())
        error = difference / float(theirs.norm()) if theirs.any() else difference
        found.append(
            (f"gradient of losses: {output}, {precision}", error, ALLOWED_GRADIENT[precision])
        )
    return found


def losses(
    cp: ContextParallel,
    features: Features,
    truth: Truth,
    outputs: dict[str, Tensor],
    assigned: Assigned | None,
) -> dict[str, Tensor]:
    """This rank's parts."""
    budget = ChunkBudget(CHUNK_BYTES)
    settings = DiffusionLossSettings()
    denoised = outputs["denoised"]
    diffusion = (truth, features, settings, cp)
    parts = {
        "distogram": distogram_loss(
            head_of(outputs), own_pairs(cp, features, outputs["z"][0]), truth, features, cp, budget
        ),
        "bfactor": bfactor_loss(own_tokens(cp, features, outputs["bfactor"]), truth, features, cp),
        "mse": mse_loss(
            denoised, outputs["target"].detach(), outputs["sigmas"].detach(), SIGMA_DATA, *diffusion
        ),
        "smooth_lddt": smooth_lddt_loss(denoised, *diffusion, budget),
    }
    coords = outputs["coords"][0].detach()
    assigned = assigned or assign(coords, truth, cp, budget)
    parts["plddt"] = plddt_loss(
        own_tokens(cp, features, outputs["plddt"]), coords, assigned, truth, features, cp, budget
    )
    parts["resolved"] = resolved_loss(
        own_tokens(cp, features, outputs["resolved"]), assigned, features, cp
    )
    targets = PairTargets(coords, assigned, truth, features)
    first = cp.first_row(features.num_tokens)
    own = slice(first, first + features.num_tokens // cp.size)
    rows = [padded(features, x)[own] for x in outputs["pair_rows"]]
    columns = [padded(features, x) for x in outputs["pair_columns"]]
    num_bins = columns[0].shape[-1]
    pde, pae = (
        of_rows[:, None] * of_columns for of_rows, of_columns in zip(rows, columns, strict=True)
    )
    parts["pde"] = pair_error(pde, targets.pde(own, num_bins)) / (EPSILON + targets.num_pde())
    parts["pae"] = pair_error(pae, targets.pae(own, num_bins)) / (EPSILON + targets.num_pae())
    return parts


class Head(nn.Linear):
    """A Linear layer with these weights, which are not parameters of it."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = weight.shape
        self.given = (weight, bias)

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, *self.given)


def head_of(outputs: dict[str, Tensor]) -> Head:
    return Head(outputs["distogram_weight"], outputs["distogram_bias"])


def padded(features: Features, x: Tensor, dims: int = 1) -> Tensor:
    """Zeros after the tokens, along the first dimensions."""
    extra = features.num_tokens - x.shape[0]
    sizes = [0, 0] * (x.dim() - dims) + [0, extra] * dims
    return nn.functional.pad(x, sizes)


def own_pairs(cp: ContextParallel, features: Features, z: Tensor) -> Tensor:
    return cp.shard(padded(features, z, 2)).clone()


def own_tokens(cp: ContextParallel, features: Features, x: Tensor) -> Tensor:
    return cp.shard(padded(features, x[0]))


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_boltz(name: str, size: int, precision: str, oracle: Oracle) -> None:
    if not LOSSES[name].exists:
        pytest.skip(f"{LOSSES[name].structure} is missing")
    torch.set_num_threads(1)
    check(worst(run(measure, size, oracle, name, precision), name))


def test_symmetric_copies_and_atoms_are_assigned(oracle: Oracle) -> None:
    cases = [case.name for case in LOSSES.values() if case.code and case.exists]
    if not cases:
        pytest.skip("no experimental structures in ../shared/data/structures")
    for name in cases:
        record = oracle.record_of(f"losses of {name}")
        truth = truth_of_case(record["feats"], record["symmetries"], torch.float64)
        coords = record["outputs"]["coords"][0].double()
        assigned = assign(coords, truth, ContextParallel(), ChunkBudget(CHUNK_BYTES))
        assert torch.equal(assigned.resolved, record["fp64"]["assigned"]["resolved"].double())
        known = assigned.resolved > 0
        distance = (assigned.coords[known] - coords[known]).norm(dim=-1)
        before = (truth.coords[known] - coords[known]).norm(dim=-1)
        assert distance.mean() < 1.5, "the prediction is the truth, exchanged, and 0.7 Å of noise"
        assert distance.mean() <= before.mean()
