"""Atoms, relative positions and the sampler's parts against their equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foldcp.complex import Bond, Chain, Complex, Contact
from foldcp.config import TINY, DiffusionProcess
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.features.featurize import featurize
from foldcp.kernels.window_attention import window_attention
from foldcp.model.diffusion.sampler import AtomDiffusion, SeededNoise, align, rotation_of
from foldcp.model.layers.atoms import AtomEncoder, keys, queries, to_atoms, to_tokens
from foldcp.model.layers.transformer import DiffusionTransformer
from foldcp.model.trunk.pair_embedder import PairEmbedding


@pytest.fixture(scope="module")
def features() -> Features:
    chains = (
        Chain("A", "protein", "GSHMKCA"),
        Chain("B", "protein", "GSHMKCA"),
        Chain("C", "protein", "CAGWC", cyclic=True),
        Chain("D", "dna", "GATC"),
    )
    bond = Bond(("A", 6, "SG"), ("C", 1, "SG"))
    contact = Contact(("A", 2), ("D", 3), max_distance=9.0)
    return featurize(Complex("zoo", chains, bonds=(bond,), contacts=(contact,))).pad(5)


def randomised(module):  # noqa: ANN201
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    return module


def test_a_window_of_32_atoms_sees_the_128_around_it() -> None:
    x = torch.arange(1.0, 161.0)[:, None]
    assert torch.equal(queries(x)[2, :, 0], x[64:96, 0])
    assert torch.equal(keys(x)[2, :, 0], x[16:144, 0])
    assert torch.equal(keys(x)[0, :, 0], torch.cat([torch.zeros(48), x[:80, 0]]))
    assert torch.equal(keys(x)[4, :, 0], torch.cat([x[80:, 0], torch.zeros(48)]))


def test_window_attention_is_dense_attention_with_a_mask() -> None:
    M = 2
    A = 96
    H = 3
    D = 4
    q, k, v = torch.randn(3, M, A, H, D, dtype=torch.float64)
    bias = torch.randn(A // 32, H, 32, 128, dtype=torch.float64)
    mask = torch.ones(A, dtype=torch.float64)
    mask[-7:] = 0
    dense = torch.full((H, A, A), -1e6, dtype=torch.float64)
    for window in range(A // 32):
        for key in range(128):
            atom = 32 * window - 48 + key
            if 0 <= atom < A and mask[atom]:
                dense[:, 32 * window : 32 * window + 32, atom] = bias[window, :, :, key]
    scores = torch.einsum("mqhd,mkhd->mhqk", q, k) / D**0.5 + dense
    expected = torch.einsum("mhqk,mkhd->mqhd", scores.softmax(-1), v)
    torch.testing.assert_close(window_attention(q, k, v, bias, mask), expected)


def test_tokens_are_means_of_their_atoms(features: Features) -> None:
    x = torch.randn(2, features.num_atoms, 3)
    got = to_tokens(x, features)
    layout = features.layout
    for token in range(len(layout.token_chain)):
        atoms = torch.from_numpy(layout.atom_token == token).nonzero()[:, 0]
        torch.testing.assert_close(got[:, token], x[:, atoms].mean(1), atol=1e-5, rtol=1e-5)
    assert (got[:, len(layout.token_chain) :] == 0).all()
    back = to_atoms(got, features)
    assert torch.equal(back[:, 3], got[:, layout.atom_token[3]])
    assert (back[:, features.atom_mask == 0] == 0).all()


def test_atoms_are_a_matrix_times_their_one_hot_features(features: Features) -> None:
    f = features
    encoder = randomised(AtomEncoder(TINY, structure=False))
    one_hot = torch.cat(
        [
            F.one_hot(f.ref_element, 128),
            F.one_hot(f.ref_atom_name_chars, 64).flatten(1),
        ],
        -1,
    )
    inputs = torch.cat([f.ref_pos, f.ref_charge[:, None], one_hot * f.atom_mask[:, None]], -1)
    torch.testing.assert_close(
        encoder.atoms(f), encoder.embed_atom_features(inputs), atol=1e-5, rtol=1e-5
    )


def relative_one_hot(f: Features) -> Tensor:
    """AlphaFold 3, algorithm 3, pair by pair."""
    rows = []
    for i in range(f.num_tokens):
        for j in range(f.num_tokens):
            chain = f.asym_id[i] == f.asym_id[j]
            entity = f.entity_id[i] == f.entity_id[j]
            d = int(f.residue_index[i] - f.residue_index[j])
            if period := int(f.cyclic_period[j]):
                d -= period * round(d / period)
            residue = min(max(d, -32), 32) + 32 if chain else 65
            same = chain and f.residue_index[i] == f.residue_index[j]
            token = min(max(int(f.token_index[i] - f.token_index[j]), -32), 32) + 32 if same else 65
            copy = min(max(int(f.sym_id[i] - f.sym_id[j]), -2), 2) + 2 if entity else 5
            hot = [
                F.one_hot(torch.tensor(x), n) for x, n in ((residue, 66), (token, 66), (copy, 6))
            ]
            rows.append(torch.cat([hot[0], hot[1], torch.tensor([int(entity)]), hot[2]]))
    return torch.stack(rows).float().unflatten(0, (f.num_tokens, -1))


def test_pairs_start_from_positions_bonds_and_contacts(features: Features) -> None:
    f = features
    module = randomised(PairEmbedding(TINY))
    expected = module.rel_pos.linear_layer(relative_one_hot(f))
    bonds, types = torch.zeros(2, f.num_tokens, f.num_tokens, dtype=torch.long)
    for i, j, kind in f.bonds.tolist():
        bonds[i, j], types[i, j] = 1, kind
    expected = (
        expected + module.token_bonds(bonds[..., None].float()) + module.token_bonds_type(types)
    )
    conditioning = module.contact_conditioning
    told = conditioning.encoding_unselected.expand(f.num_tokens, f.num_tokens, -1).clone()
    for row, (i, j, kind) in enumerate(f.contacts.tolist()):
        threshold = (f.contact_threshold[row] - 4) / 16
        hot = F.one_hot(torch.tensor(kind), 5)[2:].float()
        fourier = torch.cos(2 * torch.pi * conditioning.fourier_embedding.proj(threshold[None]))
        told[i, j] = conditioning.encoder(torch.cat([hot, threshold[None], fourier]))
    assert len(f.bonds) and len(f.contacts) and f.contact_default == 1
    for rows in (slice(0, 7), slice(7, f.num_tokens)):
        torch.testing.assert_close(
            module.embed_pairs(f, rows), (expected + told)[rows], atol=1e-5, rtol=1e-5
        )


def test_stacked_modulations_are_those_of_each_layer() -> None:
    transformer = randomised(DiffusionTransformer(6, 10, 3, 2))
    s = torch.randn(7, 10)
    for layer, got in zip(transformer.layers, transformer.modulations(s), strict=True):
        for adaln, scale, shift in (
            (layer.adaln, got.attention_scale, got.attention_shift),
            (layer.transition.adaln, got.transition_scale, got.transition_shift),
        ):
            normed = F.layer_norm(s, (10,)) * adaln.s_norm.weight
            torch.testing.assert_close(scale, adaln.s_scale(normed).sigmoid())
            torch.testing.assert_close(shift, adaln.s_bias(normed))
        torch.testing.assert_close(got.attention_gate, layer.output_projection(s))
        torch.testing.assert_close(got.transition_gate, layer.transition.output_projection(s))


def test_rotations_rotate() -> None:
    rotation = rotation_of(torch.randn(50, 4, dtype=torch.float64))
    identity = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(rotation @ rotation.mT, identity)
    torch.testing.assert_close(torch.det(rotation), torch.ones(50, dtype=torch.float64))
    assert rotation.mean(0).abs().max() < 0.35


def test_alignment_undoes_a_motion_and_never_mirrors() -> None:
    target = torch.randn(2, 40, 3)
    weights = torch.ones(40)
    weights[30:] = 0
    moved = target @ rotation_of(torch.randn(2, 4)).mT + torch.randn(2, 1, 3)
    moved[:, 30:] = 99.0  # of no weight
    torch.testing.assert_close(
        align(moved, target, weights)[:, :30], target[:, :30], atol=1e-4, rtol=1e-4
    )
    mirrored = target * torch.tensor([-1.0, 1.0, 1.0])
    again = align(mirrored, target, torch.ones(40))
    assert (
        torch.det(
            torch.linalg.lstsq(
                mirrored - mirrored.mean(1, True), again - again.mean(1, True)
            ).solution
        ).min()
        > 0
    )


def test_noise_levels_fall_from_160_times_16_to_zero() -> None:
    levels = AtomDiffusion(TINY, DiffusionProcess(), ContextParallel()).schedule(20)
    assert levels[0] == pytest.approx(160 * 16, rel=1e-5) and levels[19] == pytest.approx(
        1e-4 * 16, rel=1e-3
    )
    assert levels[20] == 0 and levels == sorted(levels, reverse=True)
    middle = (160 ** (1 / 7) + 10 / 19 * (1e-4 ** (1 / 7) - 160 ** (1 / 7))) ** 7 * 16
    assert levels[10] == pytest.approx(middle, rel=1e-5)


def test_a_sample_draws_its_own_numbers() -> None:
    def drawn(samples: range) -> list[Tensor]:
        draws = SeededNoise(4, samples, 10, torch.device("cpu"))
        return [draws.initial(), *draws.step(0), *draws.step(1)]

    for together, first, second in zip(
        drawn(range(2)), drawn(range(1)), drawn(range(1, 2)), strict=True
    ):
        assert torch.equal(together, torch.cat([first, second]))
        assert not torch.equal(first, second)


@pytest.mark.parametrize("stretch", [(1, 1, 1), (1, 1, 0), (30, 1, 1e-3), (1, 1e-2, 0)], ids=str)
@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_rotation_is_that_of_the_singular_vectors(
    stretch: tuple[float, ...], mirror: float
) -> None:
    """Kabsch 1978, with the determinant's sign: for solid, flat, long and nearly straight
    structures.
    """
    torch.manual_seed(3)
    turn = rotation_of(torch.randn(4, 4).double())
    stretches = torch.tensor(stretch).double()
    x = torch.randn(4, 50, 3).double() * stretches
    noise = 0.1 * torch.randn(4, 50, 3).double() * stretches
    y = (x * torch.tensor([mirror, 1.0, 1.0]) + noise) @ turn
    weights = torch.rand(50).double()
    x, y = (v - (v * weights[:, None]).sum(1, keepdim=True) / weights.sum() for v in (x, y))
    u, _, vt = torch.linalg.svd((y * weights[:, None]).mT @ x)
    u[..., -1] *= torch.det(u @ vt)[:, None]
    torch.testing.assert_close(align(x, y, weights), x @ (u @ vt).mT, atol=1e-6, rtol=1e-6)
