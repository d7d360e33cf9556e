"""Tokens, atoms, poses and padding of small complexes without ligands, worked out by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from foldcp.chemistry.vocabulary import TOKEN_IDS, standard_residue
from foldcp.complex import Chain, Complex
from foldcp.features.atoms import Augmentation
from foldcp.features.features import Features
from foldcp.features.featurize import featurize

# A: ALA (5 atoms) GLY (4); B: the same; D: DT (20) DN (11); R: U (20)
SMALL = Complex(
    "small",
    (
        Chain("A", "protein", "AG"),
        Chain("D", "dna", "TN"),
        Chain("B", "protein", "AG"),
        Chain("R", "rna", "U"),
    ),
)


@pytest.fixture(scope="module")
def small() -> Features:
    return featurize(SMALL, seed=3)


def test_tokenize_gives_the_tokens_worked_out_by_hand(small: Features) -> None:
    names = ["ALA", "GLY", "DT", "DN", "ALA", "GLY", "U"]
    assert small.layout.token_name == names
    assert small.res_type.tolist() == [TOKEN_IDS[name] for name in names]
    assert small.mol_type.tolist() == [0, 0, 1, 1, 0, 0, 2]
    assert small.asym_id.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert small.entity_id.tolist() == [0, 0, 1, 1, 0, 0, 2]
    assert small.sym_id.tolist() == [0, 0, 0, 0, 1, 1, 0]
    assert small.residue_index.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert small.token_index.tolist() == list(range(7))
    assert small.method.tolist() == [1] * 7
    assert not small.modified.any() and not small.cyclic_period.any()
    assert small.layout.chain_names == ["A", "D", "B", "R"]
    assert small.layout.chain_kinds == ["protein", "dna", "protein", "rna"]
    assert small.layout.chain_entities.tolist() == [0, 1, 0, 2]
    assert small.layout.token_residue.tolist() == [1, 2, 1, 2, 1, 2, 1]


def test_atom_features_worked_out_by_hand(small: Features) -> None:
    counts = [5, 4, 20, 11, 5, 4, 20]
    starts = np.cumsum([0, *counts])[:-1]
    assert (small.num_tokens, small.num_atoms, sum(counts)) == (7, 96, 69)
    assert small.atom_mask.tolist() == [1.0] * 69 + [0.0] * 27
    assert small.atom_token[:69].tolist() == np.repeat(np.arange(7), counts).tolist()
    assert small.ref_space_uid[:69].tolist() == np.repeat(np.arange(7), counts).tolist()
    for x in (
        small.atom_token,
        small.ref_space_uid,
        small.ref_element,
        small.ref_atom_name_chars,
        small.ref_pos,
    ):
        assert not x[69:].any()
    names = small.layout.atom_name
    assert names[:9] == ["N", "CA", "C", "O", "CB", "N", "CA", "C", "O"]
    # CB of alanine, CA of glycine, C2 of thymine, C1' of the unknown base, ..
    assert [names[i] for i in small.rep_atom.tolist()] == [
        "CB",
        "CA",
        "C2",
        "C1'",
        "CB",
        "CA",
        "C2",
    ]
    assert (small.rep_atom - torch.tensor(starts)).tolist() == [4, 1, 12, 10, 4, 1, 13]
    frames = [[names[i] for i in row] for row in small.frame_atoms.tolist()]
    assert frames[0] == ["N", "CA", "C"] and frames[3] == ["C1'", "C3'", "C4'"]
    assert small.ref_element[:6].tolist() == [7, 6, 6, 8, 6, 7]
    assert small.ref_atom_name_chars[1].tolist() == [ord("C") - 32, ord("A") - 32, 0, 0]
    assert small.ref_atom_name_chars[9 + 3].tolist() == [
        ord("O") - 32,
        ord("5") - 32,
        ord("'") - 32,
        0,
    ]


def test_featurize_without_msas_has_the_queries_alone(small: Features) -> None:
    assert small.num_msa_rows == 1
    assert small.msa[0].tolist() == small.res_type.tolist()
    assert small.paired.all() and small.msa_mask.all()
    assert (
        not small.has_deletion.any()
        and not small.deletion_value.any()
        and not small.deletion_mean.any()
    )
    assert torch.equal(small.profile, torch.nn.functional.one_hot(small.res_type, 33).float())
    assert (
        small.contact_default == 0
        and len(small.bonds) == len(small.contacts) == len(small.template_mask) == 0
    )


def test_featurize_moves_every_residue_but_the_last() -> None:
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(6, 3, 3, generator=generator))[0]
    translation = torch.randn(6, 3, generator=generator)
    features = featurize(SMALL, augmentation=Augmentation(rotation, translation))
    start = 0
    for i, code in enumerate(features.layout.token_name):
        x = torch.from_numpy(standard_residue(code).positions).float()
        moved = (x - x.mean(0)) @ rotation[i] + translation[i] if i < 6 else x
        torch.testing.assert_close(
            features.ref_pos[start : start + len(x)], moved, atol=2e-6, rtol=0
        )
        start += len(x)


def test_augmentation_draw_gives_rotations_that_follow_the_seed() -> None:
    drawn = Augmentation.draw(5001, seed=1)
    identity = torch.eye(3).expand(5000, 3, 3)
    torch.testing.assert_close(drawn.rotation @ drawn.rotation.mT, identity, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        torch.linalg.det(drawn.rotation), torch.ones(5000), atol=1e-5, rtol=0
    )
    # Uniform on the rotations: every entry has mean 0 and variance 1/3.
    assert drawn.rotation.mean(0).abs().max() < 0.04
    assert (drawn.rotation.pow(2).mean(0) - 1 / 3).abs().max() < 0.03
    assert abs(float(drawn.translation.std()) - 1) < 0.03
    again = featurize(SMALL, seed=1)
    other = featurize(SMALL, seed=2)
    assert torch.equal(featurize(SMALL, seed=1).ref_pos, again.ref_pos)
    assert not torch.equal(again.ref_pos, other.ref_pos)


def test_features_pad_keeps_tokens_and_masks_the_rest(small: Features) -> None:
    padded = small.pad(5)
    assert (padded.num_tokens, padded.num_atoms) == (10, small.num_atoms)
    assert padded.token_mask.tolist() == [1.0] * 7 + [0.0] * 3
    assert padded.msa.dtype == torch.int8 and padded.msa[0, 7:].tolist() == [TOKEN_IDS["-"]] * 3
    assert not padded.msa_mask[:, 7:].any() and not padded.paired[:, 7:].any()
    assert padded.frame_atoms.shape == (10, 3) and padded.profile.shape == (10, 33)
    for name in (
        "res_type",
        "asym_id",
        "rep_atom",
        "frame_atoms",
        "profile",
        "deletion_mean",
    ):
        before = getattr(small, name)
        after = getattr(padded, name)
        assert torch.equal(after[:7], before) and not after[7:].any()
    assert padded.template_frame_rot.shape == (0, 10, 3, 3)
    assert padded.layout is small.layout
    assert torch.equal(small.pad(7).res_type, small.res_type)
    assert padded.to("cpu").num_tokens == 10


def test_featurize_numbers_the_methods() -> None:
    def method(name: str) -> int:
        return int(featurize(Complex("x", (Chain("A", "protein", "GA"),), method=name)).method[1])

    assert [
        method(m) for m in ("MD", "Electron Microscopy", "solution nmr", "EPR", "AFDB", "")
    ] == [0, 2, 3, 4, 5, 1]
    with pytest.raises(ValueError, match="complex x: unknown experimental method 'guess'"):
        method("guess")


def test_cyclic_period_is_the_length_of_a_cyclic_chain() -> None:
    features = featurize(
        Complex(
            "x",
            (Chain("A", "protein", "GA"), Chain("B", "protein", "GAG", cyclic=True)),
        )
    )
    assert features.cyclic_period.tolist() == [0, 0, 3, 3, 3]


def test_tokenize_gives_unknown_letters_the_kind_of_their_chain() -> None:
    features = featurize(Complex("x", (Chain("A", "protein", "XUA"), Chain("R", "rna", "N"))))
    assert [features.layout.token_name[i] for i in range(4)] == [
        "UNK",
        "UNK",
        "ALA",
        "N",
    ]
    assert features.frame_atoms[:2].tolist() == [[0, 0, 0], [5, 5, 5]]


def test_featurize_takes_linear_time_and_memory() -> None:
    rng = np.random.default_rng(0)
    chains = [
        Chain(
            f"C{i}",
            "protein",
            "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 1000).tolist()),
        )
        for i in range(20)
    ]
    start = time.perf_counter()
    features = featurize(Complex("big", tuple(chains))).pad(16)
    assert time.perf_counter() - start < 10
    assert features.num_tokens == 20_000
    stored = sum(
        x.untyped_storage().nbytes() for x in vars(features).values() if isinstance(x, torch.Tensor)
    )
    assert stored < 2000 * features.num_tokens
