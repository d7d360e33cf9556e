"""Losses: of conformers and symmetric copies, against whole arrays, and without any on a rank."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from foldcp.config import TINY
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.model.boltz2 import DistogramModule
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.training.assignment import assign
from foldcp.training.example import TrainingExample
from foldcp.training.losses.confidence import PairTargets, token_lddt
from foldcp.training.losses.diffusion import mse_loss, smooth_lddt_loss
from foldcp.training.losses.distogram import distogram_loss
from foldcp.training.losses.partial import total
from foldcp.training.settings import DiffusionLossSettings
from tests.support.distributed import run
from tests.support.memory import LiveBytes
from tests.training.examples import example, with_symmetries

SETTINGS = DiffusionLossSettings()
ALONE = ContextParallel()


def predicted(given: TrainingExample, num_samples: int = 2) -> Tensor:
    """The conformers with noise of 1 Å."""
    conformers = given.truth.conformers
    coords = conformers.repeat_interleave(num_samples // len(conformers), 0)
    generator = torch.Generator().manual_seed(1)
    return coords + torch.randn(coords.shape, generator=generator)


def smooth_lddt(cp: ContextParallel, given: TrainingExample, budget: ChunkBudget) -> Tensor:
    padded = given.pad(cp.size)
    coords = predicted(padded).requires_grad_()
    part = smooth_lddt_loss(coords, padded.truth, padded.features, SETTINGS, cp, budget)
    part.backward()
    assert coords.grad is not None
    return torch.cat([total(cp, part)[None], cp.all_reduce(coords.grad).flatten()])


def test_smooth_lddt_is_that_of_whole_arrays_on_any_number_of_ranks() -> None:
    given = example(conformers=2)
    features = given.features
    coords = predicted(given)
    kind = features.mol_type[features.atom_token]
    cutoff = 15.0 + 15.0 * ((kind == 1) | (kind == 2))
    known = given.truth.resolved > 0
    scores = []
    for x, true in zip(coords, given.truth.conformers, strict=True):
        distance = (true[:, None] - true).norm(dim=-1)
        error = (distance - (x[:, None] - x + 1e-6).norm(dim=-1)).abs()
        mask = known[:, None] & known & (distance < cutoff[:, None])
        mask &= ~torch.eye(len(x), dtype=torch.bool)
        score = sum(torch.sigmoid(t - error) for t in (0.5, 1.0, 2.0, 4.0)) / 4
        scores.append((score * mask).sum() / (mask.sum() + 1e-5))
    expected = 1 - sum(scores) / 2
    one = smooth_lddt(ALONE, given, ChunkBudget(1 << 16))
    torch.testing.assert_close(one[0], expected)
    for size in (2, 3):
        for got in run(smooth_lddt, size, given, ChunkBudget(1 << 17)):
            torch.testing.assert_close(got, one, rtol=1e-4, atol=1e-7)


def test_mse_is_zero_for_the_truth_moved_and_ignores_what_is_missing() -> None:
    given = example()
    truth = given.truth
    turn = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    moved = truth.conformers @ turn + torch.tensor([3.0, -1.0, 2.0])
    moved[:, truth.resolved == 0] += 100.0
    sigmas = torch.tensor([4.0])
    loss = mse_loss(moved, truth.conformers, sigmas, 16.0, truth, given.features, SETTINGS, ALONE)
    assert loss < 1e-8
    missing_ligand = replace(truth, resolved=truth.resolved * (given.features.atom_token < 10))
    worse = moved.clone()
    worse[:, given.features.atom_token >= 10] += 5.0
    loss = mse_loss(
        worse, truth.conformers, sigmas, 16.0, missing_ligand, given.features, SETTINGS, ALONE
    )
    assert loss < 1e-8


def test_distogram_loss_of_conformers_is_their_mean() -> None:
    given = example(conformers=2)
    truth = given.truth
    N = given.features.num_tokens
    head = DistogramModule(TINY).distogram
    torch.nn.init.normal_(head.weight)
    torch.nn.init.normal_(head.bias)
    z = torch.randn((N, N, TINY.token_z), generator=torch.Generator().manual_seed(2))

    def loss(of: Tensor) -> Tensor:
        one = replace(truth, conformers=of)
        return distogram_loss(head, z, one, given.features, ALONE, ChunkBudget(1 << 16))

    separate = (loss(truth.conformers[:1]) + loss(truth.conformers[1:])) / 2
    torch.testing.assert_close(loss(truth.conformers), separate)


def assigned_coords(cp: ContextParallel, given: TrainingExample, coords: Tensor) -> Tensor:
    assigned = assign(coords, given.truth, cp, ChunkBudget(1 << 17))
    return torch.cat([assigned.coords, assigned.resolved[:, None]], 1)


def test_exchanged_copies_and_atoms_are_found_on_any_number_of_ranks() -> None:
    given = with_symmetries(example())
    truth = given.truth
    symmetries = truth.symmetries
    assert symmetries is not None
    expected = truth.coords.clone()
    resolved = truth.resolved.clone()
    for start, stop, other in symmetries.chains[1]:
        expected[start:stop] = truth.coords[other : other + stop - start]
        resolved[start:stop] = truth.resolved[other : other + stop - start]
    to, source = symmetries.residues[0][0].T
    expected[to] = expected[source]
    resolved[to] = resolved[source]
    coords = expected + 0.1
    for size in (1, 2, 3):
        for got in run(assigned_coords, size, given, coords):
            assert torch.equal(got[:, :3], expected)
            assert torch.equal(got[:, 3], resolved)


def test_losses_make_no_array_of_all_pairs() -> None:
    given = example()
    A = given.features.num_atoms
    N = given.features.num_tokens
    budget = ChunkBudget(1 << 13)
    coords = predicted(given).requires_grad_()
    with LiveBytes() as counted:
        smooth_lddt_loss(coords, given.truth, given.features, SETTINGS, ALONE, budget).backward()
    assert counted.largest < A * A
    with LiveBytes() as counted:
        assign(coords[0].detach(), with_symmetries(given).truth, ALONE, budget)
    assert counted.largest < A * A * 4
    head = DistogramModule(TINY).distogram
    torch.nn.init.normal_(head.weight)
    z = torch.randn(N, N, TINY.token_z, requires_grad=True)
    with LiveBytes() as counted:
        distogram_loss(head, z, given.truth, given.features, ALONE, budget).backward()
    assert counted.largest <= N * N * TINY.token_z * 4


def test_confidence_targets_of_the_truth_itself() -> None:
    given = example()
    truth = given.truth
    features = given.features
    assigned = assign(truth.coords, truth, ALONE, ChunkBudget())
    lddt, known = token_lddt(truth.coords, assigned, truth, features, ALONE, ChunkBudget())
    assert (lddt[known > 0] == 1).all()
    assert 0 < known.sum() < features.num_tokens
    targets = PairTargets(truth.coords, assigned, truth, features)
    rows = slice(0, features.num_tokens)
    for errors in (targets.pde(rows, 64), targets.pae(rows, 64)):
        assert not errors.bins[errors.mask > 0].any()
        assert 0 < errors.mask.sum() < errors.mask.numel()
    assert targets.num_pae() == targets.pae(rows, 64).mask.sum()
    assert targets.num_pde() == targets.pde(rows, 64).mask.sum()
