"""Features of some of a complex's tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from foldcp.complex import Chain, Complex
from foldcp.features.crop import crop_features
from foldcp.features.features import Features, token_axes
from foldcp.features.featurize import featurize

pytest.importorskip("rdkit", reason="ligands are read with RDKit")


def features(tmp_path: Path) -> Features:
    """Two proteins with alignments, one with a modified residue, DNA, and a glycan."""
    msa = tmp_path / "a.a3m"
    msa.write_text(">q\nMKDAYIAF\n>x\nMKDSYlIAF\n>y\n-KDSYIA-\n")
    return featurize(
        Complex(
            "x",
            (
                Chain("A", "protein", "MKDAYIAF", msa=msa),
                Chain("B", "protein", "GASTK", modifications=((3, "SEP"),)),
                Chain("D", "dna", "GATTACA"),
                Chain("L", "ligand", ccd=("NAG", "NAG")),
            ),
        )
    )


def test_all_tokens_are_the_features(tmp_path: Path) -> None:
    whole = features(tmp_path)
    cropped = crop_features(whole, np.arange(whole.num_tokens))
    for name, value in vars(whole).items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(getattr(cropped, name), value, rtol=0, atol=0)


def test_tokens_keep_their_values_and_atoms(tmp_path: Path) -> None:
    whole = features(tmp_path)
    is_sugar = np.array(whole.layout.token_name) == "NAG"
    second_sugar = np.flatnonzero(is_sugar & (whole.layout.token_residue == 2))
    tokens = np.concatenate([[1, 2, 5, 10, 13, 14], second_sugar])
    cropped = crop_features(whole, tokens)
    renumbered = {"token_index", "rep_atom", "frame_atoms"}
    for name, axis in token_axes().items():
        if name not in renumbered:
            expected = getattr(whole, name).index_select(axis.dim, torch.from_numpy(tokens))
            torch.testing.assert_close(getattr(cropped, name), expected, rtol=0, atol=0)
    layout = cropped.layout
    num_atoms = len(layout.atom_name)
    assert cropped.num_atoms % 32 == 0 and cropped.num_atoms >= num_atoms
    assert cropped.atom_mask.sum() == num_atoms

    def atoms(f: Features, index: Tensor) -> list[tuple[int, int, str]]:
        return [
            (
                int(f.layout.token_chain[f.layout.atom_token[i]]),
                int(f.layout.token_residue[f.layout.atom_token[i]]),
                f.layout.atom_name[i],
            )
            for i in index.tolist()
        ]

    assert atoms(cropped, cropped.rep_atom) == atoms(whole, whole.rep_atom[torch.tensor(tokens)])
    polymers = len(tokens) - len(second_sugar)
    for column in range(3):
        got = atoms(cropped, cropped.frame_atoms[:polymers, column])
        assert got == atoms(whole, whole.frame_atoms[torch.tensor(tokens[:polymers]), column])
    start = int(np.searchsorted(layout.atom_token, polymers))
    assert cropped.frame_atoms[polymers:].unique(dim=0).tolist() == [[start + 1, start, start + 2]]
    kept = np.flatnonzero(np.isin(whole.layout.atom_token, tokens))
    torch.testing.assert_close(cropped.ref_pos[:num_atoms], whole.ref_pos[torch.tensor(kept)])
    assert cropped.atom_token[:num_atoms].tolist() == layout.atom_token.tolist()


def test_pairs_with_other_tokens_are_left_out(tmp_path: Path) -> None:
    whole = features(tmp_path)
    is_sugar = np.array(whole.layout.token_name) == "NAG"
    tokens = np.concatenate([[3, 10], np.flatnonzero(is_sugar & (whole.layout.token_residue == 1))])
    cropped = crop_features(whole, tokens)
    expected = {
        (tokens.tolist().index(i), tokens.tolist().index(j), kind)
        for i, j, kind in whole.bonds.tolist()
        if i in tokens and j in tokens
    }
    assert expected and {tuple(row) for row in cropped.bonds.tolist()} == expected
    names = [cropped.layout.atom_name[i] for i in cropped.layout.bonds[:, 0]]
    whole_names = [whole.layout.atom_name[i] for i in whole.layout.bonds[:, 0]]
    assert names == whole_names[: len(names)]


def test_expanded_fields_stay_expanded(tmp_path: Path) -> None:
    cropped = crop_features(features(tmp_path), np.arange(4, 9))
    assert cropped.msa_mask.shape == (3, 5)
    assert cropped.msa_mask.stride(0) == 0
    assert cropped.pad(4).num_tokens == 8
