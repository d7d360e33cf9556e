"""Templates: matched residues and frames, against small structures written by the test."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch

from foldcp.chemistry.vocabulary import PROTEIN_LETTERS, TOKEN_IDS, ccd_atoms, standard_residue
from foldcp.complex import Chain, Complex, Template
from foldcp.features.features import Features
from foldcp.features.featurize import featurize
from foldcp.features.templates.structure import read_template

SEQUENCE = "GMAWKSTVLEDHPFYR"
CODES = [PROTEIN_LETTERS[letter] for letter in SEQUENCE]


def position(chain: int, residue: int, atom: int) -> np.ndarray:
    """Made up, and different for every atom."""
    return np.round(np.random.default_rng([chain, residue, atom]).normal(scale=9, size=3), 3)


def structure(
    sequences: list[list[str]],
    missing: set[tuple[int, int]],
    without: set[tuple[int, int, str]],
) -> gemmi.Structure:
    """Chains A, B, ..; residues `missing` are unresolved and atoms `without` absent."""
    model_file = gemmi.Structure()
    model_file.name = "made"
    model = gemmi.Model(1) if int(gemmi.__version__.split(".")[1]) >= 7 else gemmi.Model("1")  # type: ignore[arg-type]
    for c, codes in enumerate(sequences):
        chain = gemmi.Chain("ABC"[c])
        for r, code in enumerate(codes):
            if (c, r) in missing:
                continue
            residue = gemmi.Residue()
            residue.name = code
            residue.subchain = "ABC"[c]
            residue.entity_id = str(c + 1)
            residue.seqid = gemmi.SeqId(str(r + 11))
            residue.label_seq = r + 1
            residue.entity_type = gemmi.EntityType.Polymer
            ccd = ccd_atoms(code)
            for a, name in enumerate(ccd.names):
                if ccd.elements[a] != 1 and not ccd.leaving[a] and (c, r, name) not in without:
                    atom = gemmi.Atom()
                    atom.name = name
                    atom.element = gemmi.Element(int(ccd.elements[a]))
                    atom.pos = gemmi.Position(*position(c, r, a).tolist())
                    residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
        entity = gemmi.Entity(str(c + 1))
        entity.entity_type = gemmi.EntityType.Polymer
        entity.polymer_type = gemmi.PolymerType.PeptideL
        entity.full_sequence = codes
        entity.subchains = ["ABC"[c]]
        model_file.entities.append(entity)
    model_file.add_model(model)
    return model_file


def write(
    path: Path,
    sequences: list[list[str]],
    missing: set[tuple[int, int]] = frozenset(),  # type: ignore[assignment]
    without: set[tuple[int, int, str]] = frozenset(),  # type: ignore[assignment]
) -> Path:
    structure(sequences, missing, without).make_mmcif_document().write_file(str(path))
    return path


def template_features_of(*templates: Template, chains: dict[str, str]) -> Features:
    return featurize(
        Complex(
            "x",
            tuple(Chain(n, "protein", s) for n, s in chains.items()),
            templates=templates,
        )
    )


def atom_of(chain: int, residue: int, name: str, codes: list[str] = CODES) -> torch.Tensor:
    a = ccd_atoms(codes[residue]).names.index(name)
    return torch.from_numpy(position(chain, residue, a)).float()


def test_template_features_of_the_chain_itself(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.cif",
        [CODES],
        missing={(0, 4)},
        without={(0, 3, "C"), (0, 7, "CB"), (0, 8, "CA")},
    )
    features = template_features_of(Template(path), chains={"A": SEQUENCE, "B": "GG"})
    n = len(SEQUENCE)
    assert features.template_res_type[0].tolist() == [TOKEN_IDS[code] for code in CODES] + [0, 0]
    assert features.template_mask[0].tolist() == [1.0] * n + [0.0] * 2
    frames = torch.ones(n + 2)
    betas = torch.ones(n + 2)
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
        rotation = features.template_frame_rot[0, r]
        origin = features.template_frame_t[0, r]
        if not frames[r]:
            assert torch.equal(rotation, torch.eye(3)) and not origin.any()
            continue
        c, nitrogen = (rotation.T @ (atom_of(0, r, name) - origin) for name in ("C", "N"))
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), atol=1e-5, rtol=0)
        assert torch.linalg.det(rotation) > 0.99
        assert c[0] > 0 and c[1:].abs().max() < 1e-4  # C on the first axis
        assert nitrogen[1] > 0 and abs(nitrogen[2]) < 1e-4  # N in the plane of the first two
        torch.testing.assert_close(origin, atom_of(0, r, "CA"))


def test_template_features_use_the_whole_diagonal_of_the_alignment(tmp_path: Path) -> None:
    """Our chain begins at the template's fifth residue and ends in three others, after which two
    fit by place.
    """
    path = write(tmp_path / "t.cif", [CODES])
    features = template_features_of(Template(path), chains={"A": "SS" + SEQUENCE[6:14] + "GGAAAA"})
    types = [TOKEN_IDS[code] for code in CODES[4:]] + [0] * 4
    assert features.template_res_type[0].tolist() == types
    assert features.template_mask[0].tolist() == [1.0] * 12 + [0.0] * 4
    torch.testing.assert_close(features.template_ca[0, 11], atom_of(0, 15, "CA"))


def test_match_chains_by_score_or_by_name(tmp_path: Path) -> None:
    other = [PROTEIN_LETTERS[letter] for letter in "CCQNIYWCCQNNIW"]
    path = write(tmp_path / "t.cif", [CODES, other])
    chains = {"X": "CCQNIYWCCQNNIW", "Y": SEQUENCE}
    found = template_features_of(Template(path), chains=chains)
    assert found.template_mask.all() and found.template_visibility.tolist() == [[0] * 30]
    torch.testing.assert_close(found.template_ca[0, 0], atom_of(1, 0, "CA", other))
    torch.testing.assert_close(found.template_ca[0, 14], atom_of(0, 0, "CA"))
    with_chains = template_features_of(Template(path, ("Y",), ("A",)), chains=chains)
    assert with_chains.template_visibility.tolist() == [[-1] * 14 + [0] * 16]
    subset = template_features_of(Template(path, (), ("A",)), chains=chains)
    assert torch.equal(subset.template_mask, with_chains.template_mask)
    # Equal chains: the first matches the first.
    equal = template_features_of(
        Template(write(tmp_path / "u.cif", [CODES, CODES])),
        chains={"P": SEQUENCE, "Q": SEQUENCE},
    )
    torch.testing.assert_close(equal.template_ca[0, 1], atom_of(0, 1, "CA"))
    torch.testing.assert_close(equal.template_ca[0, 17], atom_of(1, 1, "CA"))


def test_template_features_of_several_templates_and_a_repeated_file(tmp_path: Path) -> None:
    first = write(tmp_path / "t.cif", [CODES, CODES])
    second = write(tmp_path / "u.cif", [CODES])
    unlike = write(tmp_path / "v.cif", [["CYS"] * 9])
    features = template_features_of(
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


def test_read_template_with_modified_residues(tmp_path: Path) -> None:
    codes = [*CODES[:1], "MSE", *CODES[2:5], "SEP", *CODES[6:]]
    path = write(tmp_path / "t.cif", [codes], without={(0, 3, "N")})
    chain = read_template(path)["A"]
    assert chain.sequence == "GXAWKX" + SEQUENCE[6:]
    features = template_features_of(Template(path), chains={"A": SEQUENCE})
    assert features.template_res_type[0, [1, 5]].tolist() == [
        TOKEN_IDS["MET"],
        TOKEN_IDS["UNK"],
    ]
    assert features.template_mask_frame[0].tolist() == [1, 1, 1, 0, 1, 0, *[1] * 10]
    # Phosphoserine is represented by its first atom.
    nitrogen = atom_of(0, 5, "N", codes)
    torch.testing.assert_close(features.template_ca[0, 5], nitrogen)
    torch.testing.assert_close(features.template_cb[0, 5], nitrogen)
    torch.testing.assert_close(features.template_cb[0, 1], atom_of(0, 1, "CB", codes))


def test_read_template_of_a_pdb_file(tmp_path: Path) -> None:
    path = tmp_path / "t.pdb"
    structure([CODES], set(), set()).write_pdb(str(path))
    features = template_features_of(Template(path, ("A",), ("A1",)), chains={"A": SEQUENCE})
    torch.testing.assert_close(features.template_ca[0, 5], atom_of(0, 5, "CA"))
    assert features.template_mask.all()


def test_match_chains_refuses_invalid_templates(tmp_path: Path) -> None:
    path = write(tmp_path / "t.cif", [CODES, CODES])
    chains = {"A": SEQUENCE, "B": SEQUENCE}
    with pytest.raises(ValueError, match=r"t\.cif: the complex has no protein chain 'Q'"):
        template_features_of(Template(path, ("Q",)), chains=chains)
    with pytest.raises(ValueError, match=r"t\.cif: the file has no protein chain 'Q', only A, B"):
        template_features_of(Template(path, ("A",), ("Q",)), chains=chains)
    with pytest.raises(ValueError, match="cannot match 2 chains to 1 one by one"):
        template_features_of(Template(path, ("A", "B"), ("A",)), chains=chains)
    with pytest.raises(ValueError, match="a forced template needs a threshold"):
        template_features_of(Template(path, force=True), chains=chains)
    with pytest.raises(ValueError, match=r"none\.cif: No such file"):
        template_features_of(Template(tmp_path / "none.cif"), chains=chains)
    (tmp_path / "bad.cif").write_text("no cif\n")
    with pytest.raises(ValueError, match=r"template .*bad\.cif"):
        template_features_of(Template(tmp_path / "bad.cif"), chains=chains)
    (tmp_path / "empty.cif").write_text("data_x\n_entry.id x\n")
    with pytest.raises(ValueError, match="it has no protein chains"):
        template_features_of(Template(tmp_path / "empty.cif"), chains=chains)


def in_a_row(
    sequences: list[list[str]], missing: set[tuple[int, int]] = frozenset()
) -> gemmi.Structure:  # type: ignore[assignment]
    """A `structure` whose author names are the next letter (B for A), with numbers from 101, and
    peptide bonds between neighbours alone.
    """
    model_file = structure(sequences, missing, set())
    for c, chain in enumerate(model_file[0]):
        chain.name = "BCD"[c]
        for residue in chain:
            residue.seqid.num = 100 + residue.label_seq  # type: ignore[operator]
            for atom in residue:
                atom.pos = gemmi.Position(
                    0, 0, 10.0 * residue.label_seq + {"C": 8.7}.get(atom.name, 0)
                )  # type: ignore[operator]
    return model_file


def without(model_file: gemmi.Structure, *categories: str) -> gemmi.cif.Block:
    block = model_file.make_mmcif_document()[0]
    for category in categories:
        block.find_mmcif_category(category).erase()
    return block


GAP = {(0, 5), (0, 6), (0, 7)}


@pytest.mark.parametrize(
    "lost",
    [
        ("_struct_asym.",),
        ("_struct_asym.", "_entity."),
        ("_entity.",),
        ("_entity_poly_seq.",),
        ("_struct_asym.", "_entity.", "_entity_poly.", "_entity_poly_seq."),
    ],
)
def test_read_template_of_an_mmcif_without_entities(tmp_path: Path, lost: tuple[str, ...]) -> None:
    whole = tmp_path / "whole.cif"
    path = tmp_path / "t.cif"
    model_file = in_a_row([CODES, CODES[:11]], GAP)
    without(model_file).write_file(str(whole)), without(model_file, *lost).write_file(str(path))
    expected = read_template(whole)
    found = read_template(path)
    assert list(found) == list(expected) == ["A", "B"]
    with_chains = "_entity_poly_seq." not in lost
    assert found["A"].sequence == (SEQUENCE if with_chains else SEQUENCE[:5] + "XXX" + SEQUENCE[8:])
    for label in "AB":
        for field in (
            "frame_rot",
            "frame_t",
            "frame_mask",
            "center",
            "representative",
            "representative_mask",
        ):
            np.testing.assert_array_equal(
                getattr(found[label], field), getattr(expected[label], field)
            )
    assert [found[label].author for label in "AB"] == ["B", "C"]


def test_read_template_takes_the_protein_of_a_chain_with_ligands(tmp_path: Path) -> None:
    """As programs write it that know one name of a chain: no entities, no labels, ligands in the
    chain.
    """
    model_file = in_a_row([CODES])
    ligand = gemmi.Residue()
    ligand.name = "ATP"
    ligand.subchain = "A"
    ligand.seqid = gemmi.SeqId("900")
    ligand.het_flag = "H"
    atom = gemmi.Atom()
    atom.name = "PG"
    atom.element = gemmi.Element("P")
    ligand.add_atom(atom)
    model_file[0][0].add_residue(ligand)
    categories = ("_struct_asym.", "_entity.", "_entity_poly.", "_entity_poly_seq.")
    block = without(model_file, *categories)
    table = block.find("_atom_site.", ["label_asym_id", "label_entity_id", "label_seq_id"])
    for row in table:
        row[0], row[1], row[2] = "A", "?", "?"
    block.write_file(str(tmp_path / "t.cif"))
    assert {
        label: chain.sequence for label, chain in read_template(tmp_path / "t.cif").items()
    } == {"A": SEQUENCE}
    for row in table:
        row[0] = "?"
    block.write_file(str(tmp_path / "u.cif"))
    assert {
        label: chain.sequence for label, chain in read_template(tmp_path / "u.cif").items()
    } == {"B": SEQUENCE}


@pytest.mark.parametrize("name", ["t.pdb", "t.ent", "t.pdb.gz"])
def test_read_template_without_seqres_fills_skipped_numbers(tmp_path: Path, name: str) -> None:
    model_file = in_a_row([CODES, CODES[:11]], GAP)
    for entity in model_file.entities:
        entity.full_sequence = []
    text = model_file.make_pdb_string()
    assert "SEQRES" not in text
    (tmp_path / name).write_bytes(
        gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    )
    features = template_features_of(
        Template(tmp_path / name), chains={"H": SEQUENCE, "L": SEQUENCE[:11]}
    )
    assert features.template_mask.sum() == 27
    assert features.template_mask_frame.sum() == 24
    assert features.template_res_type[0, 4:9].tolist() == [
        TOKEN_IDS[c] for c in (CODES[4], *["UNK"] * 3, CODES[8])
    ]
    torch.testing.assert_close(features.template_ca[0, [4, 8], 2], torch.tensor([50.0, 90.0]))


def test_read_template_adds_nothing_between_bonded_residues(
    tmp_path: Path,
) -> None:
    model_file = in_a_row([CODES])
    model_file.entities[0].full_sequence = []
    for residue in list(model_file[0][0])[6:]:
        residue.seqid.num += 40  # type: ignore[operator]
    model_file.write_pdb(str(tmp_path / "t.pdb"))
    assert read_template(tmp_path / "t.pdb")["B1"].sequence == SEQUENCE
    for atom in model_file[0][0][6]:
        atom.pos = gemmi.Position(50, 50, 50)
    model_file.write_pdb(str(tmp_path / "t.pdb"))
    assert (
        read_template(tmp_path / "t.pdb")["B1"].sequence == SEQUENCE[:6] + "X" * 40 + SEQUENCE[6:]
    )
    block = without(model_file, "_entity_poly_seq.")
    for row in block.find("_atom_site.", ["label_seq_id"]):
        row[0] = str(int(row[0]) + 2_000_000_000 * (int(row[0]) > 6))
    block.write_file(str(tmp_path / "u.cif"))
    with pytest.raises(
        ValueError,
        match=r"u\.cif: chain A: 2,000,000,000 residues are missing between 106 and 147",
    ):
        read_template(tmp_path / "u.cif")


def test_resolve_chain_names_by_label_or_author(tmp_path: Path) -> None:
    path = tmp_path / "t.cif"
    other = [PROTEIN_LETTERS[letter] for letter in "CCQNIYWCCQNNIW"]
    without(in_a_row([CODES, other])).write_file(str(path))
    chains = {"H": SEQUENCE}
    label = template_features_of(Template(path, ("H",), ("A",)), chains=chains)
    assert label.template_mask.sum() == len(SEQUENCE)
    wrong = (
        r"ambiguous protein chain 'B'; the file has A \(author's B\), B "
        r"\(author's C\)"
    )
    with pytest.raises(ValueError, match=wrong):
        template_features_of(Template(path, ("H",), ("B",)), chains=chains)
    chains["L"] = "CCQNIYWCCQNNIW"
    both = template_features_of(Template(path), chains=chains)
    for names in (("A", "B"), ("B", "C")):  # as C is no label, B is the author's, too
        with_chains = template_features_of(Template(path, ("H", "L"), names), chains=chains)
        assert (
            torch.equal(with_chains.template_res_type, both.template_res_type)
            and with_chains.template_mask.all()
        )
    by_author = template_features_of(Template(path, ("L",), ("C",)), chains={"L": "CCQNIYWCCQNNIW"})
    assert by_author.template_res_type[0].tolist() == [TOKEN_IDS[code] for code in other]
    with pytest.raises(
        ValueError,
        match=r"the file has no protein chain 'D', only A \(author's B\)",
    ):
        template_features_of(Template(path, ("H",), ("D",)), chains=chains)
    model_file = in_a_row([CODES, other])
    for residue in model_file[0][1]:
        residue.seqid.num += 500  # type: ignore[operator]
    for chain in model_file[0]:
        chain.name = "A"  # one chain of the author's, two labels
    without(model_file).write_file(str(path))
    assert list(read_template(path)) == ["A", "B"]
    assert template_features_of(
        Template(path, ("H",), ("A",)), chains={"H": SEQUENCE}
    ).template_mask.all()


def test_featurize_refuses_a_template_that_has_changed_or_is_too_large(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "t.cif", [CODES])
    complex = Complex("x", (Chain("A", "protein", SEQUENCE),), templates=(Template(path),))
    planned = replace(complex, digests={path: hashlib.sha256(path.read_bytes()).hexdigest()})
    assert featurize(planned).template_mask.all()
    with pytest.raises(ValueError, match=r"t\.cif: holds more than 99 bytes"):
        featurize(planned, max_template_bytes=99)
    path.write_text(path.read_text() + "\n")
    with pytest.raises(
        ValueError,
        match=r"template .*t\.cif: its content has changed since the run began",
    ):
        featurize(planned)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.cif", b""),
        ("x.cif", b"loop_\n"),
        ("x.cif", b"data_x\nloop_\n_a.b\n_a.c\n1 2 3\n"),
        ("x.cif", bytes(range(256))),
        ("x.pdb", b""),
        ("x.pdb", b"ATOM  nonsense\n"),
        ("x.pdb", bytes(range(256))),
    ],
)
def test_read_template_of_an_invalid_structure_names_the_file(
    tmp_path: Path, name: str, data: bytes
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"template .*{name}: "):
        read_template(tmp_path / name)


@pytest.mark.parametrize("value", ["?", "1e30"])
def test_read_template_refuses_implausible_coordinates(tmp_path: Path, value: str) -> None:
    path = write(tmp_path / "t.cif", [CODES])
    document = gemmi.cif.read(str(path))
    document[0].find("_atom_site.", ["Cartn_y"])[0][0] = value
    document.write_file(str(path))
    with pytest.raises(
        ValueError,
        match=r"t\.cif: chain A: a coordinate is not a number, or exceeds 1,000,000 Å",
    ):
        read_template(path)


def test_read_template_accepts_encodings_and_line_ends(tmp_path: Path) -> None:
    path = write(tmp_path / "t.cif", [CODES])
    text = path.read_text().replace("data_", "# é\ndata_", 1)
    for data in (
        text.replace("\n", "\r\n").encode("utf-8-sig"),
        text.replace("\n", "\r").encode("cp1252"),
    ):
        path.write_bytes(data)
        assert read_template(path)["A"].sequence == SEQUENCE


def test_read_template_finds_the_representative_of_every_standard_residue(
    tmp_path: Path,
) -> None:
    codes = list(PROTEIN_LETTERS.values())
    chain = read_template(write(tmp_path / "t.cif", [codes]))["A"]
    for r, code in enumerate(codes):
        residue = standard_residue(code)
        name = residue.atom_names[residue.representative]
        torch.testing.assert_close(
            torch.from_numpy(chain.representative[r]), atom_of(0, r, name, codes)
        )


def test_template_features_of_explicit_residues(tmp_path: Path) -> None:
    """Each chain that shares them sees itself alone; a chain of other residues is another row."""
    path = write(tmp_path / "t.cif", [CODES], missing={(0, 6)})
    mapped = ((1, 4), (3, 1), (4, 7), (2, 15))
    shared = Template(path, ("A", "B"), residues=mapped)
    other = Template(path, ("C",), residues=((5, 5),))
    chains = {"A": "GGGGG", "B": "GGGGG", "C": "AAAAA"}
    features = template_features_of(shared, other, chains=chains)
    expected = [TOKEN_IDS[CODES[r - 1]] for r in (4, 15, 1, 7)] + [0]
    assert features.template_res_type.tolist() == [
        expected + expected + [0] * 5,
        [0] * 14 + [TOKEN_IDS[CODES[4]]],
    ]
    assert features.template_mask[0].tolist() == [1, 1, 1, 1, 0] * 2 + [0] * 5
    assert features.template_mask_cb[0].tolist() == [1, 1, 1, 0, 0] * 2 + [0] * 5
    torch.testing.assert_close(features.template_ca[0, 1], atom_of(0, 14, "CA"))
    torch.testing.assert_close(features.template_ca[0, 7], atom_of(0, 0, "CA"))
    groups = [[v.unique().tolist() for v in row.split(5)] for row in features.template_visibility]
    for row in groups:
        assert len({group for [group] in row}) == 3


@pytest.mark.parametrize(
    ("residues", "expected"),
    [
        (((1, 16),), "there is no residue 16 in its chain A, which has 15"),
        (((6, 1),), "residue 6 of a chain of 5"),
    ],
)
def test_template_residues_that_do_not_exist(
    tmp_path: Path, residues: tuple[tuple[int, int], ...], expected: str
) -> None:
    path = write(tmp_path / "t.cif", [CODES])
    with pytest.raises(ValueError, match=expected):
        template_features_of(Template(path, ("A",), residues=residues), chains={"A": "GGGGG"})


def test_template_residues_are_of_one_chain(tmp_path: Path) -> None:
    path = write(tmp_path / "t.cif", [CODES, CODES])
    template = Template(path, ("A",), residues=((1, 1),))
    with pytest.raises(ValueError, match="residues are matched to those of one chain, but there"):
        template_features_of(template, chains={"A": "GGGGG"})
    named = replace(template, template_chains=("B",))
    assert template_features_of(named, chains={"A": "GGGGG"}).template_mask[0].sum() == 1
