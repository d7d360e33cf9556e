"""Templates: which residue imitates which, and the frames, against small structures written by the test."""

from __future__ import annotations

from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch

from foldcp.chemistry import PROTEIN_LETTERS, TOKEN_IDS, ccd_atoms, standard_residue
from foldcp.complex import Chain, Complex, Template
from foldcp.features import Features, featurize
from foldcp.template_structure import read_template

SEQUENCE = "GMAWKSTVLEDHPFYR"
CODES = [PROTEIN_LETTERS[letter] for letter in SEQUENCE]


def position(chain: int, residue: int, atom: int) -> np.ndarray:
    """Made up, and different for every atom."""
    return np.round(np.random.default_rng([chain, residue, atom]).normal(scale=9, size=3), 3)


def structure(
    sequences: list[list[str]], missing: set[tuple[int, int]], without: set[tuple[int, int, str]]
) -> gemmi.Structure:
    """Chains A, B, ..; residues `missing` are unresolved and atoms `without` absent."""
    made = gemmi.Structure()
    made.name = "made"
    model = gemmi.Model(1) if int(gemmi.__version__.split(".")[1]) >= 7 else gemmi.Model("1")  # type: ignore[arg-type]
    for c, codes in enumerate(sequences):
        chain = gemmi.Chain("ABC"[c])
        for r, code in enumerate(codes):
            if (c, r) in missing:
                continue
            residue = gemmi.Residue()
            residue.name, residue.subchain, residue.entity_id = code, "ABC"[c], str(c + 1)
            residue.seqid, residue.label_seq = gemmi.SeqId(str(r + 11)), r + 1
            residue.entity_type = gemmi.EntityType.Polymer
            ccd = ccd_atoms(code)
            for a, name in enumerate(ccd.names):
                if ccd.elements[a] != 1 and not ccd.leaving[a] and (c, r, name) not in without:
                    atom = gemmi.Atom()
                    atom.name, atom.element = name, gemmi.Element(int(ccd.elements[a]))
                    atom.pos = gemmi.Position(*position(c, r, a).tolist())
                    residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
        entity = gemmi.Entity(str(c + 1))
        entity.entity_type, entity.polymer_type = gemmi.EntityType.Polymer, gemmi.PolymerType.PeptideL
        entity.full_sequence, entity.subchains = codes, ["ABC"[c]]
        made.entities.append(entity)
    made.add_model(model)
    return made


def write(
    path: Path,
    sequences: list[list[str]],
    missing: set[tuple[int, int]] = frozenset(),  # type: ignore[assignment]
    without: set[tuple[int, int, str]] = frozenset(),  # type: ignore[assignment]
) -> Path:
    structure(sequences, missing, without).make_mmcif_document().write_file(str(path))
    return path


def imitate(*templates: Template, chains: dict[str, str]) -> Features:
    return featurize(Complex("x", tuple(Chain(n, "protein", s) for n, s in chains.items()), templates=templates))


def atom_of(chain: int, residue: int, name: str, codes: list[str] = CODES) -> torch.Tensor:
    a = ccd_atoms(codes[residue]).names.index(name)
    return torch.from_numpy(position(chain, residue, a)).float()


def test_a_template_of_the_chain_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "t.cif", [CODES], missing={(0, 4)}, without={(0, 3, "C"), (0, 7, "CB"), (0, 8, "CA")})
    features = imitate(Template(path), chains={"A": SEQUENCE, "B": "GG"})
    n = len(SEQUENCE)
    assert features.template_res_type[0].tolist() == [TOKEN_IDS[code] for code in CODES] + [0, 0]
    assert features.template_mask[0].tolist() == [1.0] * n + [0.0] * 2
    frames, betas = torch.ones(n + 2), torch.ones(n + 2)
    frames[[3, 4, 8, n, n + 1]] = 0
    betas[[4, 7, n, n + 1]] = 0
    assert torch.equal(features.template_mask_frame[0], frames)
    assert torch.equal(features.template_mask_cb[0], betas)
    assert features.template_visibility[0].tolist() == [0] * n + [-2] * 2
    torch.testing.assert_close(features.template_ca[0, 5], atom_of(0, 5, "CA"))
    torch.testing.assert_close(features.template_cb[0, 5], atom_of(0, 5, "CB"))
    torch.testing.assert_close(features.template_cb[0, 0], atom_of(0, 0, "CA"))  # glycine
    assert not features.template_ca[0, 4].any() and not features.template_cb[0, 7].any()
    for r in range(n):
        rotation, origin = features.template_frame_rot[0, r], features.template_frame_t[0, r]
        if not frames[r]:
            assert torch.equal(rotation, torch.eye(3)) and not origin.any()
            continue
        c, nitrogen = (rotation.T @ (atom_of(0, r, name) - origin) for name in ("C", "N"))
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), atol=1e-5, rtol=0)
        assert torch.linalg.det(rotation) > 0.99
        assert c[0] > 0 and c[1:].abs().max() < 1e-4  # C on the first axis
        assert nitrogen[1] > 0 and abs(nitrogen[2]) < 1e-4  # N in the plane of the first two
        torch.testing.assert_close(origin, atom_of(0, r, "CA"))


def test_the_alignment_shifts_and_its_diagonal_is_used_whole(tmp_path: Path) -> None:
    """Our chain begins at the template's fifth residue and ends in three others, after which two fit by place."""
    path = write(tmp_path / "t.cif", [CODES])
    features = imitate(Template(path), chains={"A": "SS" + SEQUENCE[6:14] + "GGAAAA"})
    types = [TOKEN_IDS[code] for code in CODES[4:]] + [0] * 4
    assert features.template_res_type[0].tolist() == types
    assert features.template_mask[0].tolist() == [1.0] * 12 + [0.0] * 4
    torch.testing.assert_close(features.template_ca[0, 11], atom_of(0, 15, "CA"))


def test_chains_are_assigned_by_likeness_or_as_told(tmp_path: Path) -> None:
    other = [PROTEIN_LETTERS[letter] for letter in "CCQNIYWCCQNNIW"]
    path = write(tmp_path / "t.cif", [CODES, other])
    chains = {"X": "CCQNIYWCCQNNIW", "Y": SEQUENCE}
    found = imitate(Template(path), chains=chains)
    assert found.template_mask.all() and found.template_visibility.tolist() == [[0] * 30]
    torch.testing.assert_close(found.template_ca[0, 0], atom_of(1, 0, "CA", other))
    torch.testing.assert_close(found.template_ca[0, 14], atom_of(0, 0, "CA"))
    told = imitate(Template(path, ("Y",), ("A",)), chains=chains)
    assert told.template_visibility.tolist() == [[-1] * 14 + [0] * 16]
    subset = imitate(Template(path, (), ("A",)), chains=chains)
    assert torch.equal(subset.template_mask, told.template_mask)
    # Equal chains: the first imitates the first.
    equal = imitate(Template(write(tmp_path / "u.cif", [CODES, CODES])), chains={"P": SEQUENCE, "Q": SEQUENCE})
    torch.testing.assert_close(equal.template_ca[0, 1], atom_of(0, 1, "CA"))
    torch.testing.assert_close(equal.template_ca[0, 17], atom_of(1, 1, "CA"))


def test_several_templates_and_one_file_twice(tmp_path: Path) -> None:
    first, second = write(tmp_path / "t.cif", [CODES, CODES]), write(tmp_path / "u.cif", [CODES])
    unlike = write(tmp_path / "v.cif", [["CYS"] * 9])
    features = imitate(
        Template(first, ("A",), ("A",)),
        Template(second, ("B",), force=True, threshold=2.5),
        Template(first, ("B",), ("B",)),
        Template(unlike, ("A",)),
        chains={"A": SEQUENCE, "B": SEQUENCE},
    )
    n = len(SEQUENCE)
    assert features.template_visibility.tolist() == [[0] * (2 * n), [-1] * n + [1] * n]
    assert features.template_force.tolist() == [False, True]
    assert features.template_force_threshold.tolist() == [float("inf"), 2.5]
    assert features.pad(9).template_frame_rot.shape == (2, 36, 3, 3)


def test_modified_residues_of_a_template(tmp_path: Path) -> None:
    codes = [*CODES[:1], "MSE", *CODES[2:5], "SEP", *CODES[6:]]
    path = write(tmp_path / "t.cif", [codes], without={(0, 3, "N")})
    chain = read_template(path)["A"]
    assert chain.sequence == "GXAWKX" + SEQUENCE[6:]
    features = imitate(Template(path), chains={"A": SEQUENCE})
    assert features.template_res_type[0, [1, 5]].tolist() == [TOKEN_IDS["MET"], TOKEN_IDS["UNK"]]
    assert features.template_mask_frame[0].tolist() == [1, 1, 1, 0, 1, 0, *[1] * 10]
    # The first atom of phosphoserine stands for it.
    nitrogen = atom_of(0, 5, "N", codes)
    torch.testing.assert_close(features.template_ca[0, 5], nitrogen)
    torch.testing.assert_close(features.template_cb[0, 5], nitrogen)
    torch.testing.assert_close(features.template_cb[0, 1], atom_of(0, 1, "CB", codes))


def test_a_pdb_file(tmp_path: Path) -> None:
    path = tmp_path / "t.pdb"
    structure([CODES], set(), set()).write_pdb(str(path))
    features = imitate(Template(path, ("A",), ("A1",)), chains={"A": SEQUENCE})
    torch.testing.assert_close(features.template_ca[0, 5], atom_of(0, 5, "CA"))
    assert features.template_mask.all()


def test_what_a_template_cannot_be(tmp_path: Path) -> None:
    path = write(tmp_path / "t.cif", [CODES, CODES])
    chains = {"A": SEQUENCE, "B": SEQUENCE}
    with pytest.raises(ValueError, match=r"t\.cif: 'Q' is no protein chain of the complex"):
        imitate(Template(path, ("Q",)), chains=chains)
    with pytest.raises(ValueError, match=r"t\.cif: 'Q' is no protein chain of the file, which has A, B"):
        imitate(Template(path, ("A",), ("Q",)), chains=chains)
    with pytest.raises(ValueError, match="2 chains cannot imitate 1 one by one"):
        imitate(Template(path, ("A", "B"), ("A",)), chains=chains)
    with pytest.raises(ValueError, match="a forced template needs a threshold"):
        imitate(Template(path, force=True), chains=chains)
    with pytest.raises(ValueError, match=r"none\.cif: No such file"):
        imitate(Template(tmp_path / "none.cif"), chains=chains)
    (tmp_path / "bad.cif").write_text("no cif\n")
    with pytest.raises(ValueError, match=r"template .*bad\.cif"):
        imitate(Template(tmp_path / "bad.cif"), chains=chains)
    (tmp_path / "empty.cif").write_text("data_x\n_entry.id x\n")
    with pytest.raises(ValueError, match="it has no protein chains"):
        imitate(Template(tmp_path / "empty.cif"), chains=chains)


def test_the_representative_of_every_standard_residue_is_the_structures(tmp_path: Path) -> None:
    codes = list(PROTEIN_LETTERS.values())
    chain = read_template(write(tmp_path / "t.cif", [codes]))["A"]
    for r, code in enumerate(codes):
        residue = standard_residue(code)
        name = residue.atom_names[residue.representative]
        torch.testing.assert_close(torch.from_numpy(chain.representative[r]), atom_of(0, r, name, codes))
