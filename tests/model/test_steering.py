"""Steering: the constraints and potentials of a complex, guidance, resampling, and that the number
of ranks changes nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from foldcp.checkpoint.load import load
from foldcp.chemistry.ligand_geometry import Geometry, ccd_geometry, smiles_geometry
from foldcp.chemistry.ligands import ccd_component, smiles_component
from foldcp.complex import Bond, Chain, Complex, Contact, Pocket
from foldcp.distributed import sample_parallel
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.featurize import featurize
from foldcp.features.steering import NO_CONSTRAINTS, steering_constraints
from foldcp.model.boltz2 import Boltz2
from foldcp.model.diffusion.noise import SeededNoise
from foldcp.model.diffusion.sampler import Step
from foldcp.model.steering.potentials import FlatBottomPotential, absolute_dihedrals, dihedrals
from foldcp.model.steering.schedules import (
    Constant,
    ExponentialInterpolation,
    PiecewiseStepFunction,
    Schedule,
)
from foldcp.model.steering.steering import Resample, Steering
from foldcp.model.steering.weighted_potentials import WeightedPotential, weighted_potentials
from foldcp.predict import Prediction, Settings, fold
from tests.support.distributed import run

SETTINGS = Settings(recycling=0, steps=4, samples=2, parallel_samples=6, seed=3, potentials=True)


def two_copies_and_a_ligand() -> Complex:
    """20 tokens, which 3 does not divide; two copies, a cyclic chain bound to one, a ligand with
    all kinds of terms.
    """
    return Complex(
        "steered",
        (
            Chain("A", "protein", "MKC"),
            Chain("B", "protein", "MKC"),
            Chain("D", "protein", "GCG", cyclic=True),
            Chain("L", "ligand", smiles="C/C=C/[C@H](F)C(Cl)=C(C)N"),
            Chain("Z", "ligand", ccd=("ZN",)),
        ),
        bonds=(
            Bond(("A", 3, "SG"), ("D", 2, "SG")),
            Bond(("B", 3, "SG"), ("B", 1, "N")),
        ),
        pockets=(
            Pocket("Z", (("B", 3), ("A", 1)), 4.5, force=True),
            Pocket("Z", (("D", 1),)),
        ),
        contacts=(
            Contact(("D", 3), ("A", 2), 7.0, force=True),
            Contact(("A", 1), ("B", 1)),
        ),
    )


def predict(cp: ContextParallel, settings: Settings, complex: Complex) -> Prediction:
    result = steering_constraints(complex, potentials=settings.potentials)
    model = load("untrained:tiny", cp=cp) if cp.size > 1 else alone()
    return fold(model, featurize(complex, seed=settings.seed), settings, constraints=result)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def alone() -> Boltz2:
    return load("untrained:tiny")


@cache
def on_one_rank() -> Prediction:
    return predict(ContextParallel(), SETTINGS, two_copies_and_a_ligand())


def test_constraints_turn_forced_pockets_and_contacts_into_groups_of_atom_pairs() -> None:
    result = steering_constraints(two_copies_and_a_ligand(), potentials=False)
    layout = featurize(two_copies_and_a_ligand()).layout
    zinc = len(layout.atom_name) - 1
    first = {}
    for atom, token in enumerate(layout.atom_token.tolist()):
        first.setdefault(token, []).append(atom)
    groups = [
        *[
            [(zinc, atom) for atom in first[token]] for token in (0, 5)
        ],  # in the order of the tokens
        [(i, j) for i in first[8] for j in first[1]],
    ]
    assert result.contact_pairs.T.tolist() == [list(pair) for group in groups for pair in group]
    assert result.contact_group.tolist() == [k for k, group in enumerate(groups) for _ in group]
    assert result.contact_threshold.tolist() == [
        d for group, d in zip(groups, (4.5, 4.5, 7.0), strict=True) for _ in group
    ]
    assert result.molecules is None


def test_constraints_connect_bonds_between_chains_only() -> None:
    pytest.importorskip("rdkit")
    molecules = steering_constraints(two_copies_and_a_ligand(), potentials=True).molecules
    layout = featurize(two_copies_and_a_ligand()).layout
    assert molecules is not None and molecules.connected.shape == (2, 1)
    names = [
        (layout.atom_name[i], int(layout.atom_token[i])) for i in molecules.connected[:, 0].tolist()
    ]
    assert names == [("SG", 2), ("SG", 7)]


def test_constraints_slacken_bounds() -> None:
    """Ethanol: C-C and C-O bonds 1.5 and 1.4 Å, C..O an angle; then butane's ends, which are
    neither.
    """
    pytest.importorskip("rdkit")
    result = steering_constraints(
        Complex("x", (Chain("L", "ligand", smiles="CCO"),)), potentials=True
    ).molecules
    raw = smiles_geometry("CCO")
    assert result is not None
    assert [*zip(*raw.pairs.tolist(), raw.bond.tolist(), raw.angle.tolist(), strict=True)] == [
        (0, 1, True, False),
        (0, 2, False, True),
        (1, 2, True, False),
    ]
    np.testing.assert_allclose(raw.upper, [1.52, 2.44, 1.42], atol=0.06)
    np.testing.assert_allclose(result.lower[[0, 2]], raw.lower[[0, 2]] * 0.875)
    np.testing.assert_allclose(result.upper, raw.upper * 1.125)
    assert result.lower[1].item() == pytest.approx(
        max(raw.lower[1] * 0.875, 0.35 + (1.7 + 1.55) / 2)
    )
    ends = steering_constraints(
        Complex("x", (Chain("L", "ligand", smiles="CCCC"),)), potentials=True
    ).molecules
    raw = smiles_geometry("CCCC")
    assert ends is not None and ends.bounded.T.tolist()[2] == [0, 3]
    assert (ends.lower[2].item(), ends.upper[2].item()) == (
        pytest.approx(raw.lower[2] * 0.9),
        math.inf,
    )
    ring = steering_constraints(
        Complex("x", (Chain("L", "ligand", smiles="C1CCC1"),)), potentials=True
    ).molecules
    opposite = (~smiles_geometry("C1CCC1").bond).nonzero()[0].tolist()
    assert ring is not None and smiles_geometry("C1CCC1").lower[opposite].max() * 0.875 < 2
    assert ring.lower[opposite].tolist() == [pytest.approx(0.35 + 1.7)] * 2
    bromine = steering_constraints(
        Complex("x", (Chain("L", "ligand", smiles="[Be]Br"),)), potentials=True
    ).molecules
    raw = smiles_geometry("[Be]Br")
    assert bromine is not None
    assert bromine.upper.item() == pytest.approx(
        min(raw.upper.item() * 1.125, 0.35 + (1.9 + 1.9) / 2)
    )


def energies(geometry: Geometry, position: np.ndarray) -> tuple[float, float, float]:
    """Chiral, stereo and planar energy of a molecule alone."""
    indices = (torch.from_numpy(x) for x in (geometry.chiral, geometry.stereo, geometry.planar))
    chiral, stereo, planar = indices
    r = torch.from_numpy(geometry.chiral_r)
    e = torch.from_numpy(geometry.stereo_e)
    no = torch.tensor(math.inf)
    planes = torch.cat([planar[[1, 2, 3, 0]], planar[[4, 5, 0, 3]]], 1)
    x = torch.from_numpy(position)[None].float()
    low = torch.tensor(0.26)
    terms = (
        FlatBottomPotential(
            dihedrals, chiral, torch.where(r, 0.52, -no), torch.where(r, no, -0.52)
        ),
        FlatBottomPotential(
            absolute_dihedrals,
            stereo,
            torch.where(e, math.pi - 0.52, -no),
            torch.where(e, no, 0.52),
        ),
        FlatBottomPotential(
            absolute_dihedrals,
            planes,
            -no.expand(planes.shape[1]),
            low.expand(planes.shape[1]),
        ),
    )
    chiral_energy, stereo_energy, planar_energy = (term.energy(x, 0.0).item() for term in terms)
    return chiral_energy, stereo_energy, planar_energy


@pytest.mark.parametrize(
    ("smiles", "other_isomer"),
    [
        ("C/C=C/[C@H](F)C(=O)O", "C/C=C\\[C@H](F)C(=O)O"),
        ("C/C=C\\[C@@](F)(Cl)Br", "C/C=C/[C@@](F)(Cl)Br"),
        ("C/C(F)=C(\\C)[C@@H](N)C[C@H](O)Cl", "C/C(F)=C(/C)[C@@H](N)C[C@H](O)Cl"),
    ],
)
def test_smiles_geometry_is_kept_by_its_stereoisomer_alone(smiles: str, other_isomer: str) -> None:
    pytest.importorskip("rdkit")
    geometry = smiles_geometry(smiles)
    position = smiles_component(smiles, "LIG1").positions
    np.testing.assert_allclose(energies(geometry, position), 0, atol=0.05)
    distance = np.linalg.norm(position[geometry.pairs[0]] - position[geometry.pairs[1]], axis=1)
    assert (distance > geometry.lower * 0.9).all() and (distance < geometry.upper * 1.1).all()
    mirrored = energies(geometry, position * [1, 1, -1])
    assert mirrored[0] > 1 and mirrored[1:] == (0, 0)
    isomer = energies(geometry, smiles_component(other_isomer, "LIG1").positions)
    assert isomer[1] > 1 and isomer[2] == 0
    if geometry.planar.size:
        bent = position.copy()
        start = position[geometry.planar[0, 0]]
        first = position[geometry.planar[1, 0]]
        bent[geometry.planar[1, 0]] = start + np.cross(
            first - start, position[geometry.planar[3, 0]] - start
        )
        assert energies(geometry, bent)[2] > 0.1


@pytest.mark.parametrize("code", ["ATP", "NAG", "HEM", "FAD", "SAH"])
def test_ccd_geometry_is_kept_by_the_ideal_coordinates(code: str) -> None:
    pytest.importorskip("rdkit")
    component = ccd_component(code, "ligand")
    geometry = ccd_geometry(code, component.atom_names)
    assert geometry.pairs.shape[1] == component.num_atoms * (component.num_atoms - 1) // 2
    assert energies(geometry, component.positions)[0] == 0
    if code != "HEM":
        assert energies(geometry, -component.positions)[0] > 1


def test_ccd_geometry_has_no_terms_of_atoms_that_leave_a_polymer() -> None:
    pytest.importorskip("rdkit")
    whole = ccd_component("SEP", "ligand")
    residue = ccd_component("SEP", "protein")
    assert "OXT" in whole.atom_names and "OXT" not in residue.atom_names
    geometry = ccd_geometry("SEP", residue.atom_names)
    assert geometry.pairs.max() == residue.num_atoms - 1
    assert geometry.pairs.shape[1] == residue.num_atoms * (residue.num_atoms - 1) // 2


def test_geometry_without_rdkit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(
        ValueError,
        match=r"SMILES 'CCCCCN' is read with RDKit: pip install 'foldcp\[ligands\]'",
    ):
        smiles_geometry("CCCCCN")
    with pytest.raises(ValueError, match="CCD component 'GTP' is read with RDKit"):
        ccd_geometry("GTP", ("PG",))


def test_constraints_refuse_a_pocket_of_a_missing_chain() -> None:
    complex = Complex(
        "x",
        (Chain("A", "protein", "MK"),),
        pockets=(Pocket("Q", (("A", 1),), force=True),),
    )
    with pytest.raises(ValueError, match="complex x: the binder 'Q'"):
        steering_constraints(complex, potentials=False)


def test_weighted_potentials_of_a_complex() -> None:
    pytest.importorskip("rdkit")

    def kinds(complex: Complex, potentials: bool) -> list[str]:
        result = steering_constraints(complex, potentials=potentials)
        return [
            type(w.potential).__name__
            for w in weighted_potentials(featurize(complex).pad(3), result)
        ]

    all_kinds = [
        "SymmetricChainCOMPotential",
        "VDWOverlapPotential",
        *5 * ["FlatBottomPotential"],
        "ContactPotential",
    ]
    assert kinds(two_copies_and_a_ligand(), True) == all_kinds
    assert kinds(two_copies_and_a_ligand(), False) == ["ContactPotential"]
    protein = Chain("A", "protein", "MKTW")
    ion = Chain("Z", "ligand", ccd=("ZN",))
    assert kinds(Complex("x", (protein,)), True) == []
    assert (
        kinds(Complex("x", (protein, ion, replace(ion, name="Y"))), True) == []
    )  # ions neither repel nor overlap
    assert kinds(Complex("x", (protein, replace(protein, name="B", sequence="MK"))), True) == [
        "VDWOverlapPotential"
    ]
    bound = Bond(("A", 1, "CA"), ("B", 1, "CA"))
    joined = Complex("x", (protein, replace(protein, name="B")), bonds=(bound,))
    assert kinds(joined, True) == [
        "SymmetricChainCOMPotential",
        "FlatBottomPotential",
    ]  # chains joined by a bond may overlap


def test_schedules_interpolate_over_time() -> None:
    steps = PiecewiseStepFunction((0.25, 0.75), (0.0, 0.5, 1.0))
    times = (0.0, 0.25, 0.26, 0.75, 0.76, 1.0)
    assert [steps(time) for time in times] == [0, 0, 0.5, 0.5, 1, 1]
    curve = ExponentialInterpolation(8.0, 0.0, -2.0)
    assert (curve(0.0), curve(1.0)) == (8, pytest.approx(0))
    assert curve(0.5) == pytest.approx(8 - 8 * (1 - math.exp(-1)) / (1 - math.exp(-2)))


class Spring:
    """Energy |x|^2 / 2."""

    def energy(self, x: Tensor, time: float) -> Tensor:
        return x.square().sum((1, 2)) / 2

    def gradient(self, x: Tensor, time: float) -> Tensor:
        return x


def no_resampling(index: int, weights: Tensor, count: int) -> Tensor:
    raise AssertionError(f"resampled in step {index}")


def spring_steering(
    guidance: float, interval: int, resampling: float, resample: Resample = no_resampling
) -> Steering:
    """Of samples of three particles, in five steps."""
    spring = WeightedPotential(Spring(), Constant(guidance), interval, Constant(resampling))
    return Steering([spring], 3, 5, resample, ContextParallel())


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_step(index: int, variance: float = 0.09) -> Step:
    turn, _ = torch.linalg.qr(normal(6, 3, 3, seed=40 + index))
    return Step(index, turn, math.sqrt(variance) * normal(6, 5, 3, seed=index), variance, 0.7)


def test_steering_resamples_by_likelihood_and_fall_of_energy() -> None:
    """Against the densities themselves: of the noise, and of the noise that would have led here
    without guidance.
    """
    calls: list[tuple[int, Tensor, int]] = []
    choices = iter(
        [
            torch.tensor([[2, 0, 2], [1, 1, 0]]),
            torch.tensor([[0, 1, 2], [2, 2, 1]]),
            torch.tensor([[1], [2]]),
        ]
    )

    def resample(index: int, weights: Tensor, count: int) -> Tensor:
        calls.append((index, weights, count))
        return next(choices)

    steering = spring_steering(0.02, 2, 0.05, resample)
    x = normal(6, 5, 3, seed=1)
    denoised = 0.5 * normal(6, 5, 3, seed=2)

    def energy(x: Tensor) -> Tensor:
        return 0.05 * x.square().sum((1, 2)) / 2

    first, denoised_first = steering(some_step(0), x, denoised)
    torch.testing.assert_close(calls[0][1], (-4 * energy(denoised)).reshape(2, 3).softmax(1))
    chosen = torch.tensor([2, 0, 2, 4, 4, 3])
    torch.testing.assert_close(first, x[chosen])
    # every other one of 20 steps of gradient descent
    torch.testing.assert_close(denoised_first, denoised[chosen] * 0.98**10)
    shift = 0.7 * denoised[chosen] * (0.98**10 - 1)

    step = some_step(3)
    later = 0.3 * normal(6, 5, 3, seed=5)
    steering(step, x, later)
    density = Normal(0, math.sqrt(step.variance))
    without_guidance = density.log_prob(step.noise + shift @ step.rotation)
    gain = (without_guidance - density.log_prob(step.noise)).sum((1, 2))
    fall = energy(denoised)[chosen] - energy(later)
    torch.testing.assert_close(calls[1][1], (gain + 4 * fall).reshape(2, 3).softmax(1))

    last, _ = steering(some_step(4, variance=0.0), x, denoised)
    assert [(index, count) for index, _, count in calls] == [(0, 3), (3, 3), (4, 1)]
    torch.testing.assert_close(last, x[[1, 5]])


def test_steering_only_guides_between_resampling_steps() -> None:
    steering = spring_steering(0.02, 2, 0.05)
    x = normal(6, 5, 3, seed=1)
    denoised = normal(6, 5, 3, seed=2)
    got, guided = steering(some_step(2), x, denoised)
    assert got is x
    torch.testing.assert_close(guided, denoised * 0.98**10)


def test_steering_does_not_resample_without_noise_before_the_last_step() -> None:
    steering = spring_steering(0.0, 1, 1.0)
    x = normal(6, 5, 3, seed=1)
    got, denoised = steering(some_step(3, variance=0.0), x, x)
    assert got is x and torch.equal(denoised, x)


def test_steering_leaves_other_samples_alone_where_one_is_not_finite() -> None:
    """The sample stays so, which the caller sees; nothing hangs or fails halfway."""
    noise = SeededNoise(5, range(2), 5, torch.device("cpu"), 3)
    steering = spring_steering(0.1, 1, 1.0, noise.resample)
    x = normal(6, 5, 3, seed=1)
    x[3:] = math.nan
    for index in range(5):
        x, _ = steering(some_step(index), x, x)
    assert x.isfinite().all((1, 2)).tolist() == [True, False]


def test_seeded_noise_gives_the_first_particle_the_numbers_of_the_sample() -> None:
    device = torch.device("cpu")
    alone = SeededNoise(5, range(1, 3), 7, device)
    particles = SeededNoise(5, range(1, 3), 7, device, 3)
    torch.testing.assert_close(particles.initial()[::3], alone.initial())
    for mine, theirs in zip(particles.step(0), alone.step(0), strict=True):
        torch.testing.assert_close(mine[::3], theirs)
        assert len(mine) == 6 and len(set(mine.flatten(1)[:, 0].tolist())) == 6
    one = SeededNoise(5, range(2, 3), 7, device, 3)
    weights = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.0, 0.4]])
    chosen = particles.resample(0, weights, 4000)
    same = one.resample(0, weights[1:], 4000)
    torch.testing.assert_close(chosen[1:], same)
    again = particles.resample(3, torch.ones(2, 3), 20)
    assert not torch.equal(*again)
    share = torch.stack([row.bincount(minlength=3) / 4000 for row in chosen])
    torch.testing.assert_close(share, weights, atol=0.03, rtol=0)
    assert share[1, 1] == 0


@pytest.mark.parametrize(("size", "shared"), [(2, True), (3, True), (2, False)])
def test_fold_with_steering_is_the_same_on_any_number_of_ranks(
    size: int, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose samples are shared by all ranks, or each on one."""
    pytest.importorskip("rdkit")
    if shared:
        monkeypatch.setattr(sample_parallel, "MAX_TOKENS", 0)  # of the ranks, too, which are forks
    expected = on_one_rank().coords
    for got in run(predict, size, SETTINGS, two_copies_and_a_ligand()):
        assert np.linalg.norm(got.coords - expected) < 1e-5 * np.linalg.norm(expected)


def test_fold_with_steering_does_not_depend_on_parallel_samples() -> None:
    pytest.importorskip("rdkit")
    complex = two_copies_and_a_ligand()
    steered = on_one_rank().coords
    one_by_one = predict(ContextParallel(), replace(SETTINGS, parallel_samples=1), complex).coords
    assert np.linalg.norm(one_by_one - steered) < 1e-5 * np.linalg.norm(steered)
    forced = predict(ContextParallel(), replace(SETTINGS, potentials=False), complex).coords
    free = predict(
        ContextParallel(),
        replace(SETTINGS, potentials=False),
        replace(complex, pockets=(), contacts=()),
    ).coords
    assert np.abs(forced - steered).max() > 1 and np.abs(forced - free).max() > 1


@pytest.mark.parametrize("potentials", [True, False])
def test_fold_refuses_constraints_made_for_other_settings(potentials: bool) -> None:
    pytest.importorskip("rdkit")
    complex = Complex("x", (Chain("A", "protein", "MKTWY"),))
    result = NO_CONSTRAINTS if potentials else steering_constraints(complex, potentials=True)
    with pytest.raises(ValueError, match=f"potentials={potentials}"):
        fold(
            alone(),
            featurize(complex),
            replace(SETTINGS, potentials=potentials),
            constraints=result,
        )


def test_vdw_overlap_potential_has_weight_late_in_the_sampling_only() -> None:
    """In the guidance of the last 40 % of the steps and in the resampling of the last 60 %."""
    pytest.importorskip("rdkit")
    complex = Complex("x", (Chain("A", "protein", "MKTW"), Chain("B", "protein", "MK")))
    (overlaps,) = weighted_potentials(
        featurize(complex), steering_constraints(complex, potentials=True)
    )
    schedules: list[Schedule] = [overlaps.guidance_weight, overlaps.resampling_weight]
    assert [[weight(t) for t in (0.4, 0.5, 0.7)] for weight in schedules] == [
        [0.125, 0, 0],
        [0.01, 0.01, 0],
    ]
