"""Atoms, relative positions and conditioned transformers against their equations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldcp.complex import Bond, Chain, Complex, Contact
from foldcp.config import TINY
from foldcp.features.features import Features
from foldcp.features.featurize import featurize
from foldcp.kernels.token_mean import TokenMean
from foldcp.model.layers.atoms import AtomEncoder, AtomTokens, to_atoms
from foldcp.model.layers.blocks import run_block
from foldcp.model.layers.transformer import AdaLN, Attend, DiffusionTransformer
from foldcp.model.trunk.pair_embedder import PairEmbedding, RelativePosition


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


def means(x: Tensor, atoms: AtomTokens) -> Tensor:
    return TokenMean()(x, atoms.atom_mask, atoms.first_atom, atoms.num_atoms)


def test_tokens_get_means_of_their_atoms(features: Features) -> None:
    x = torch.randn(2, features.num_atoms, 3)
    atom_tokens = AtomTokens.of(features)
    got = means(x, atom_tokens)
    layout = features.layout
    for token in range(len(layout.token_chain)):
        atoms = torch.from_numpy(layout.atom_token == token).nonzero()[:, 0]
        torch.testing.assert_close(got[:, token], x[:, atoms].relu().mean(1), atol=1e-5, rtol=1e-5)
    assert (got[:, len(layout.token_chain) :] == 0).all()
    back = to_atoms(got, atom_tokens)
    assert torch.equal(back[:, 3], got[:, layout.atom_token[3]])
    assert (back[:, features.atom_mask == 0] == 0).all()


def test_atom_encoder_multiplies_a_matrix_by_one_hot_features(features: Features) -> None:
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


@pytest.fixture(scope="module")
def assembly() -> Features:
    """Distances and copies beyond what is told apart, and residues of several tokens."""
    pytest.importorskip("rdkit")
    chains = (
        Chain("A", "protein", "GSHMKCAG" * 9),
        *(Chain(name, "protein", "GK") for name in "BCDE"),
        Chain("F", "protein", "CAGWCA", cyclic=True),
        Chain("G", "ligand", smiles="CCO"),
        Chain("H", "ligand", smiles="CCO"),
    )
    return featurize(Complex("assembly", chains))


def relative_one_hot(f: Features, fix_sym_check: bool = True, cyclic: bool = True) -> Tensor:
    """AlphaFold 3, algorithm 3, pair by pair."""
    rows = []
    for i in range(f.num_tokens):
        for j in range(f.num_tokens):
            chain = f.asym_id[i] == f.asym_id[j]
            entity = f.entity_id[i] == f.entity_id[j]
            d = int(f.residue_index[i] - f.residue_index[j])
            if cyclic and (period := int(f.cyclic_period[j])):
                d -= period * round(d / period)
            residue = min(max(d, -32), 32) + 32 if chain else 65
            same = chain and f.residue_index[i] == f.residue_index[j]
            token = min(max(int(f.token_index[i] - f.token_index[j]), -32), 32) + 32 if same else 65
            copies = entity if fix_sym_check else not chain
            copy = min(max(int(f.sym_id[i] - f.sym_id[j]), -2), 2) + 2 if copies else 5
            hot = [
                F.one_hot(torch.tensor(x), n) for x, n in ((residue, 66), (token, 66), (copy, 6))
            ]
            rows.append(torch.cat([hot[0], hot[1], torch.tensor([int(entity)]), hot[2]]))
    return torch.stack(rows).float().unflatten(0, (f.num_tokens, -1))


@pytest.mark.parametrize("fix_sym_check", [True, False])
@pytest.mark.parametrize("cyclic", [True, False])
def test_relative_positions_and_their_gradient_are_those_of_one_hot_features(
    assembly: Features, fix_sym_check: bool, cyclic: bool
) -> None:
    f = assembly
    architecture = replace(TINY, fix_sym_check=fix_sym_check, cyclic_pos_enc=cyclic)
    module = randomised(RelativePosition(architecture)).double()
    one_hot = relative_one_hot(f, fix_sym_check, cyclic).double()
    expected = module.linear_layer(one_hot)
    got = torch.cat([module(f, slice(0, 7)), module(f, slice(7, f.num_tokens))])
    torch.testing.assert_close(got, expected)
    upstream = torch.randn_like(expected)
    gradients = [
        torch.autograd.grad(x, module.linear_layer.weight, upstream)[0] for x in (got, expected)
    ]
    torch.testing.assert_close(*gradients)
    assert (one_hot.flatten(0, 1).sum(0) > 0).sum() >= 66 + 4 + 1 + 5  # most of what there is


def test_pair_embedding_adds_positions_bonds_and_contacts(features: Features) -> None:
    f = features
    embed_pairs = PairEmbedding(TINY)
    module = nn.Module()
    embed_pairs.register(module)
    randomised(module)
    expected = module.rel_pos.linear_layer(relative_one_hot(f))
    bonds, types = torch.zeros(2, f.num_tokens, f.num_tokens, dtype=torch.long)
    for i, j, kind in f.bonds.tolist():
        bonds[i, j], types[i, j] = 1, kind
    expected = (
        expected + module.token_bonds(bonds[..., None].float()) + module.token_bonds_type(types)
    )
    conditioning = module.contact_conditioning
    encoding = conditioning.encoding_unselected.expand(f.num_tokens, f.num_tokens, -1).clone()
    for row, (i, j, kind) in enumerate(f.contacts.tolist()):
        threshold = (f.contact_threshold[row] - 4) / 16
        hot = F.one_hot(torch.tensor(kind), 5)[2:].float()
        fourier = torch.cos(2 * torch.pi * conditioning.fourier_embedding.proj(threshold[None]))
        encoding[i, j] = conditioning.encoder(torch.cat([hot, threshold[None], fourier]))
    assert len(f.bonds) and len(f.contacts) and f.contact_default == 1
    for rows in (slice(0, 7), slice(7, f.num_tokens)):
        torch.testing.assert_close(
            embed_pairs(f, rows), (expected + encoding)[rows], atol=1e-5, rtol=1e-5
        )


def test_modulator_gives_the_modulations_of_each_layer() -> None:
    transformer = randomised(DiffusionTransformer(6, 10, 3, 2))
    s = torch.randn(7, 10)
    for layer, got in zip(transformer.layers, transformer.modulations(s), strict=True):
        for adaln, modulation in (
            (layer.adaln, got.attention),
            (layer.transition.adaln, got.transition),
        ):
            normed = F.layer_norm(s, (10,)) * adaln.s_norm.weight
            torch.testing.assert_close(modulation.scale, adaln.s_scale(normed))
            torch.testing.assert_close(modulation.shift, adaln.s_bias(normed))
        gates = (got.attention.gate.sigmoid(), got.transition.gate.sigmoid())
        torch.testing.assert_close(gates[0], layer.output_projection(s))
        torch.testing.assert_close(gates[1], layer.transition.output_projection(s))


def modulated(a: Tensor, s: Tensor, adaln: AdaLN) -> Tensor:
    normed = F.layer_norm(s, s.shape[-1:]) * adaln.s_norm.weight
    return adaln.s_scale(normed).sigmoid() * F.layer_norm(a, a.shape[-1:]) + adaln.s_bias(normed)


def expected_layers(
    transformer: DiffusionTransformer, a: Tensor, s: Tensor, attention: Sequence[Attend]
) -> Tensor:
    """AlphaFold 3, algorithms 23 to 26, with Boltz-2's third factor of the transition."""
    for layer, attend in zip(transformer.layers, attention, strict=True):
        part = layer.pair_bias_attn
        x = modulated(a, s, layer.adaln)
        q, k, v, gate = (
            f(x).unflatten(-1, (2, 3)) for f in (part.proj_q, part.proj_k, part.proj_v, part.proj_g)
        )
        update = part.proj_o(attend(q, torch.stack([k, v], -3), gate).flatten(-2))
        a = a + layer.output_projection(s) * update
        part = layer.transition
        x = modulated(a, s, part.adaln)
        b, gate = part.swish_gate(x).chunk(2, -1)
        update = part.b_to_a(F.silu(gate) * b * part.a_to_b(x))
        a = a + part.output_projection(s) * update
    return a


@pytest.mark.parametrize("in_one_pass", [False, True])
def test_transformer_follows_its_equations(in_one_pass: bool) -> None:
    transformer = randomised(DiffusionTransformer(6, 10, 3, 2))
    for parameter in transformer.parameters():
        parameter.data = parameter.half().float()  # as the weights of a transition in one pass are
    for layer in transformer.layers:
        layer.transition.in_one_pass = in_one_pass

    def attend(q: Tensor, kv: Tensor, gate: Tensor, bias: Tensor) -> Tensor:
        k, v = kv.unbind(-3)
        scores = torch.einsum("mqhd,mkhd->mhqk", q, k) + bias
        return gate.sigmoid() * torch.einsum("mhqk,mkhd->mqhd", scores.softmax(-1), v)

    attention = [partial(attend, bias=bias) for bias in torch.randn(3, 2, 7, 7)]
    a = torch.randn(4, 7, 6)
    s = torch.randn(4, 7, 10)
    modulations = transformer.modulations(s[0])
    got = transformer(a, modulations, attention)
    expected = expected_layers(transformer, a, s[0], attention)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    one_by_one = transformer(a, modulations, attention, lambda block, *args: block(*args))
    assert torch.equal(one_by_one, got)
    got = transformer.train_forward(a, s, attention, run_block)
    expected = expected_layers(transformer, a, s, attention)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
