"""Energies and gradients of the potentials: against autograd, against all pairs, and on structures
that keep all bounds.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from foldcp.model.steering.potentials import (
    ContactPotential,
    FlatBottomPotential,
    Potential,
    SymmetricChainCOMPotential,
    TemplateReferencePotential,
    Variable,
    absolute_dihedrals,
    dihedrals,
    distances,
    flat_bottom,
)
from foldcp.model.steering.schedules import Constant, Schedule
from foldcp.model.steering.vdw_overlap import VDWOverlapPotential, neighbours

TIME = 0.37


def points(*shape: int, scale: float = 3.0, seed: int = 0) -> Tensor:
    return scale * torch.randn(
        *shape, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def derivative(potential: Potential, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(potential.energy(x, TIME).sum(), x)
    return gradient


def terms(width: int, count: int, num_atoms: int) -> Tensor:
    generator = torch.Generator().manual_seed(width)
    return torch.stack(
        [torch.randperm(num_atoms, generator=generator)[:width] for _ in range(count)],
        1,
    )


def overlap_potential(**changes: object) -> VDWOverlapPotential:
    chain = torch.arange(37) % 4
    nonbonded = ~torch.eye(4, dtype=torch.bool)
    nonbonded[0, 2] = nonbonded[2, 0] = False
    settings = {
        "atoms": 2 * torch.arange(37),
        "radius": torch.linspace(1.2, 2.2, 37).double(),
        "chain": chain,
        "nonbonded_chains": nonbonded,
        "buffer": 0.2,
    }
    return VDWOverlapPotential(**{**settings, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variable", "width", "lower", "upper"),
    [
        (distances, 2, 3.1, 4.9),
        (dihedrals, 4, -0.4, 1.1),
        (absolute_dihedrals, 4, 1.2, 1.9),
    ],
)
def test_flat_bottom_potential_has_the_gradient_of_its_energy(
    variable: Variable, width: int, lower: float, upper: float
) -> None:
    atoms = terms(width, 23, 19)
    bounds = (torch.full((23,), value, dtype=torch.float64) for value in (lower, upper))
    potential = FlatBottomPotential(variable, atoms, *bounds)
    x = points(3, 19)
    value, _ = variable(x, atoms)
    assert 0 < (value < lower).sum() < value.numel() and 0 < (value > upper).sum() < value.numel()
    outside = torch.maximum(lower - value, value - upper).clamp(min=0)
    torch.testing.assert_close(potential.energy(x, TIME), outside.sum(1))
    torch.testing.assert_close(potential.gradient(x, TIME), derivative(potential, x))


def test_dihedrals_have_the_sign_of_iupac() -> None:
    """Positive if, for one who looks from j to k, i must turn clockwise to cover l."""
    i = [1.0, 0, 0]
    j = [0.0, 0, 0]
    k = [0.0, 0, 1]
    for angle in (-2.9, -1.3, 0.2, 1.7, 3.1):
        l = [2 * math.cos(angle), 2 * math.sin(angle), 1.5]
        x = torch.tensor([[i, j, k, l]], dtype=torch.float64)
        assert dihedrals(x, torch.arange(4)[:, None])[0].item() == pytest.approx(angle)
        assert absolute_dihedrals(x, torch.arange(4)[:, None])[0].item() == pytest.approx(
            abs(angle)
        )


def test_gradient_of_terms_on_one_point_is_zero() -> None:
    x = torch.zeros(1, 2, 3)
    potential = FlatBottomPotential(
        distances,
        torch.tensor([[0], [1]]),
        torch.tensor([1.5]),
        torch.tensor([torch.inf]),
    )
    assert potential.energy(x, TIME).item() == 1.5
    assert (potential.gradient(x, TIME) == 0).all()


def test_flat_bottom_takes_the_upper_of_contradicting_bounds() -> None:
    energy, slope = flat_bottom(
        torch.tensor([[1.0, 2.5, 4.0]]), torch.tensor(3.0), torch.tensor(2.0)
    )
    assert energy.tolist() == [[2.0, 0.5, 2.0]]
    assert slope.tolist() == [[-1.0, 1.0, 1.0]]


def test_symmetric_chain_com_potential_moves_chains_by_the_gradient_of_their_centers() -> None:
    chain = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2, 0, 0])
    mask = torch.tensor([1.0] * 9 + [0.0] * 2, dtype=torch.float64)
    potential = SymmetricChainCOMPotential(
        torch.tensor([[0, 0, 1], [1, 2, 2]]),
        torch.tensor([2, 3, 4]),
        chain,
        mask,
        Constant(5 * TIME),
    )
    x = points(2, 11, scale=1.5)
    centres = torch.stack(
        [x[:, (chain == c) & (mask > 0)].sum(1) / (n + 1) for c, n in enumerate((2, 3, 4))],
        1,
    )
    near = [
        5 * TIME - (centres[:, a] - centres[:, b]).norm(dim=-1)
        for a, b in combinations(range(3), 2)
    ]
    assert any((pair > 0).any() for pair in near) and any((pair < 0).any() for pair in near)
    torch.testing.assert_close(potential.energy(x, TIME), torch.stack(near).clamp(min=0).sum(0))
    per_atom = derivative(potential, x) * (torch.tensor([2, 3, 4]) + 1)[chain][:, None]
    gradient = potential.gradient(x, TIME)
    torch.testing.assert_close(gradient[:, :9], per_atom[:, :9])
    torch.testing.assert_close(gradient[:, 9], gradient[:, 0])  # padding follows the first chain


def contact_potential(union_lambda: Schedule) -> ContactPotential:
    group = torch.tensor([0] * 7 + [1] * 5 + [2] * 3)
    upper = torch.tensor([2.5] * 7 + [4.0] * 5 + [3.0] * 3, dtype=torch.float64)
    return ContactPotential(terms(2, 15, 13), group, upper, union_lambda, 3)


def test_contact_potential_is_the_mean_at_lambda_0_and_the_minimum_at_a_large_one() -> None:
    x = points(2, 13)
    flat = contact_potential(Constant(0.0))
    sharp = contact_potential(Constant(60.0))
    value, _ = distances(x, flat.pairs)
    by_group = (value - flat.upper).clamp(min=0).split([7, 5, 3], 1)
    torch.testing.assert_close(
        flat.energy(x, TIME), torch.stack([e.mean(1) for e in by_group]).sum(0)
    )
    torch.testing.assert_close(flat.gradient(x, TIME), derivative(flat, x))
    minimum = torch.stack([e.amin(1) for e in by_group]).sum(0)
    torch.testing.assert_close(sharp.energy(x, TIME), minimum, atol=0.02, rtol=0)


def test_contact_potential_differentiates_its_weights_with_the_opposite_sign() -> None:
    """As in Boltz; hence `gradient` and the derivative lie symmetrically about the derivative with
    constant weights.
    """
    x = points(2, 13)
    potential = contact_potential(Constant(2 * TIME))
    value, direction = distances(x, potential.pairs)
    energy, slope = flat_bottom(value, torch.tensor(-torch.inf), potential.upper)
    weight = torch.cat([(-2 * TIME * e).softmax(1) for e in energy.split([7, 5, 3], 1)], 1)
    torch.testing.assert_close(potential.energy(x, TIME), (weight * energy).sum(1))
    expected = torch.zeros_like(x)
    for k, (i, j) in enumerate(potential.pairs.T.tolist()):
        for atom, side in ((i, 0), (j, 1)):
            expected[:, atom] += (weight * slope)[:, k, None] * direction[:, side, k]
    torch.testing.assert_close(
        (potential.gradient(x, TIME) + derivative(potential, x)) / 2, expected
    )
    assert (potential.gradient(x, TIME) - expected).norm() > 0.1


def test_contact_potential_is_zero_where_its_weights_underflow() -> None:
    potential = contact_potential(Constant(8.0))
    x = points(1, 13) * 1000
    assert potential.energy(x, TIME).item() == 0
    assert (potential.gradient(x, TIME) == 0).all()


def test_template_reference_potential_pulls_tokens_beyond_their_threshold() -> None:
    rep_atom = torch.tensor([0, 2, 3, 6, 7, 9, 10])
    atom_token = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 4, 5, 6, 0])
    position = points(2, 7, seed=1)
    x = points(3, 12)
    mask = torch.tensor([[1, 1, 0, 1, 1, 1, 1], [1, 0, 1, 1, 1, 0, 1]], dtype=torch.float64)
    threshold = torch.tensor([2.0, 3.0], dtype=torch.float64)
    potential = TemplateReferencePotential(position, mask, threshold, rep_atom, atom_token)
    ours = x[:, rep_atom].numpy()
    energy = np.zeros(3)
    gradient = np.zeros((3, 7, 3))
    for m in range(3):
        offset = []
        for f in range(2):
            seen = mask[f].numpy() > 0
            to = ours[m, seen].mean(0)
            of = position[f].numpy()[seen].mean(0)
            turn, _ = Rotation.align_vectors(ours[m, seen] - to, position[f].numpy()[seen] - of)
            offset.append(ours[m] - (turn.apply(position[f].numpy() - of) + to))
        length = np.linalg.norm(offset, axis=-1)
        over = (length - threshold.numpy()[:, None]) * mask.numpy()
        assert 0 < (over > 0).sum() < mask.sum()
        energy[m] = over.clip(min=0).sum()
        gradient[m] = (
            (over > 0).sum(0)[:, None] * mask[0].numpy()[:, None] * offset[0] / length[0][:, None]
        )
    np.testing.assert_allclose(potential.energy(x, TIME).numpy(), energy, rtol=1e-9)
    np.testing.assert_allclose(
        potential.gradient(x, TIME).numpy(), gradient[:, atom_token], atol=1e-9
    )


@pytest.mark.parametrize("max_pairs", [1, 29, 10_000])
@pytest.mark.parametrize("scale", [0.4, 4.0, 60.0])
def test_neighbours_finds_every_close_pair_once(scale: float, max_pairs: int) -> None:
    x = points(83, scale=scale).float()
    group = torch.arange(83) % 3
    chunks = list(neighbours(x, group, 2.7, max_pairs))
    found = [
        tuple(sorted(pair)) for i, j in chunks for pair in zip(i.tolist(), j.tolist(), strict=True)
    ]
    assert len(found) == len(set(found))
    assert all(i != j and group[i] == group[j] for i, j in found)
    near = torch.cdist(x, x) < 2.7
    close = {(i, j) for i, j in combinations(range(83), 2) if near[i, j] and group[i] == group[j]}
    assert close <= set(found)
    assert scale > 1 or close
    assert all(len(i) < max_pairs + 83 for i, _ in chunks)
    assert scale < 50 or len(found) < 83 * 82 / 12  # far from all pairs


def test_neighbours_leaves_out_points_that_are_not_finite() -> None:
    x = points(9, scale=0.1)
    group = torch.zeros(9, dtype=torch.int64)
    x[4, 1], x[6] = math.nan, math.inf
    found = {
        tuple(sorted(pair))
        for i, j in neighbours(x, group, 2.0)
        for pair in zip(i.tolist(), j.tolist(), strict=True)
    }
    assert found == set(combinations([0, 1, 2, 3, 5, 7, 8], 2))
    assert list(neighbours(x[[4, 6]], group[:2], 2.0)) == []


@pytest.mark.parametrize("scale", [0.5, 2.5])
@pytest.mark.parametrize("max_pairs", [3, 1 << 20])
def test_vdw_overlap_potential_is_that_of_all_pairs(scale: float, max_pairs: int) -> None:
    potential = overlap_potential(max_pairs=max_pairs)
    x = points(3, 80, scale=scale)
    bonded = {frozenset((0, 2))}
    energy = torch.zeros(3, dtype=torch.float64)
    for a, b in combinations(range(37), 2):
        chains = frozenset((a % 4, b % 4))
        if len(chains) == 2 and chains not in bonded:
            distance = (x[:, 2 * a] - x[:, 2 * b]).norm(dim=-1)
            energy += (0.8 * (potential.radius[a] + potential.radius[b]) - distance).clamp(min=0)
    assert (energy > 0).all()
    torch.testing.assert_close(potential.energy(x, TIME), energy)
    torch.testing.assert_close(potential.gradient(x, TIME), derivative(potential, x))


def test_potentials_are_zero_where_all_bounds_are_kept() -> None:
    """A grid 10 Å wide is too wide to overlap, and its distances, angles and centres lie within
    generous bounds.
    """
    x = 10 * torch.tensor(
        [[[i, j, k] for i in range(5) for j in range(4) for k in range(4)]],
        dtype=torch.float64,
    )
    x = x + points(1, 80, scale=0.3)
    chain = torch.arange(80) // 20
    mask = torch.ones(80, dtype=torch.float64)
    far = torch.full((9,), 200.0, dtype=torch.float64)
    turn = torch.full((9,), math.pi, dtype=torch.float64)
    position = x[:, ::3] @ torch.tensor(Rotation.random(random_state=3).as_matrix()) + 4
    tokens = position.shape[1]
    potentials: list[Potential] = [
        FlatBottomPotential(distances, terms(2, 9, 80), 0 * far, far),
        FlatBottomPotential(dihedrals, terms(4, 9, 80), -turn, turn),
        FlatBottomPotential(absolute_dihedrals, terms(4, 9, 80), 0 * turn, turn),
        SymmetricChainCOMPotential(
            torch.tensor([[0, 1], [2, 3]]),
            torch.full((4,), 20),
            chain,
            mask,
            Constant(5.0),
        ),
        ContactPotential(terms(2, 9, 80), torch.arange(9) % 3, far, Constant(1.0), 3),
        overlap_potential(),
        TemplateReferencePotential(
            position,
            torch.ones(1, tokens).double(),
            0.01 + 0 * far[:1],
            3 * torch.arange(tokens),
            chain,
        ),
    ]
    for potential in potentials:
        assert potential.energy(x, TIME).item() == 0, potential
        assert (potential.gradient(x, TIME) == 0).all(), potential


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_vdw_overlap_potential_is_the_same_on_a_gpu() -> None:
    potential = overlap_potential()
    x = points(3, 80, scale=2.5)
    moved = {
        name: value.cuda() if isinstance(value, Tensor) else value
        for name, value in vars(potential).items()
    }
    there = VDWOverlapPotential(**moved)
    torch.testing.assert_close(there.energy(x.cuda(), TIME).cpu(), potential.energy(x, TIME))
    torch.testing.assert_close(there.gradient(x.cuda(), TIME).cpu(), potential.gradient(x, TIME))
