"""Structure files as python-modelcif and the readers of bonds see them."""

from __future__ import annotations

import gzip
import io
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import biotite.structure.io.pdbx as pdbx
import gemmi
import modelcif
import modelcif.dumper
import modelcif.model
import modelcif.reader
import numpy as np
import pytest

from foldcp.complex import Chain, Complex
from foldcp.pipeline.inputs.input_spec import InputSpec, only_complex
from foldcp.structure.predicted import PredictedStructure
from foldcp.structure.references import Reference
from foldcp.structure.tables import CATEGORIES
from foldcp.structure.write import (
    StructureFormat,
    bcif_bytes,
    cif_text,
    structure_format,
    structure_tables,
    write_structure,
)
from tests.structure.mixed_complex import (
    ASPIRIN,
    GLYCAN_BONDS,
    OTHER_BONDS,
    PEPTIDE,
    mixed_complex,
    protein,
    structure_of,
)
from tests.support.synthetic import synthetic_layout, synthetic_scores

FORMATS: list[StructureFormat] = ["cif", "cif.gz", "bcif"]
CASES = Path(__file__).parents[3] / "shared/cases"


@pytest.fixture(scope="module")
def mixed() -> PredictedStructure:
    return structure_of(mixed_complex())


def read(path: Path) -> Any:
    """The one system of a file, as python-modelcif reads it."""
    if path.name.endswith(".bcif"):
        with path.open("rb") as file:
            (system,) = modelcif.reader.read(file, format="BCIF")
    elif path.name.endswith(".gz"):
        with gzip.open(path, "rt") as file:
            (system,) = modelcif.reader.read(file)
    else:
        with path.open() as file:
            (system,) = modelcif.reader.read(file)
    return system


def read_text(structure: PredictedStructure) -> Any:
    (system,) = modelcif.reader.read(io.StringIO(cif_text(structure)))
    return system


def only_model(system: Any) -> Any:
    (model,) = [model for group in system.model_groups for model in group]
    return model


def category(structure: PredictedStructure, name: str) -> list[dict[str, str]]:
    """The rows of a category in the text of a structure, without quotes."""
    block = gemmi.cif.read_string(cif_text(structure)).sole_block()
    table = block.find_mmcif_category(f"_{name}.")
    tags = [tag.partition(".")[2] for tag in table.tags]
    return [dict(zip(tags, (row.str(i) for i in range(len(tags))), strict=True)) for row in table]


@pytest.mark.parametrize("format", FORMATS)
def test_modelcif_reads_every_format(
    format: StructureFormat, mixed: PredictedStructure, tmp_path: Path
) -> None:
    path = tmp_path / f"mixed.{format}"
    write_structure(path, mixed, format)
    assert structure_format(path) == format
    system = read(path)
    model = only_model(system)
    assert isinstance(model, modelcif.model.AbInitioModel)
    atoms = list(model.get_atoms())
    assert [atom.atom_id for atom in atoms] == mixed.layout.atom_name
    found = np.array([(atom.x, atom.y, atom.z) for atom in atoms])
    assert np.abs(found - mixed.coords).max() < 6e-4
    b = 100 * mixed.plddt[mixed.layout.atom_token]
    assert np.abs(np.array([atom.biso for atom in atoms]) - b).max() < 6e-4
    labels = "A B cyc one D1 D R G1 G2 L L2 Z H cap cap_2 cap_3 S S2"
    assert " ".join(asym.id for asym in system.asym_units) == labels
    assert {asym.strand_id for asym in system.asym_units} == set(mixed.layout.chain_names)
    again = io.StringIO()
    modelcif.dumper.write(again, [system])
    assert len(again.getvalue()) > 50_000


def test_every_category_is_documented_in_its_order(mixed: PredictedStructure) -> None:
    assert list(structure_tables(mixed)) == list(CATEGORIES)


def test_modelcif_knows_the_molecules(mixed: PredictedStructure) -> None:
    system = read_text(mixed)
    entities = system.entities
    assert [(entity.type, entity.description) for entity in entities] == [
        ("polymer", "P12345:5-22, Q9JLM8"),
        ("polymer", "protein cyc"),
        ("polymer", "ENSP00000001"),
        ("polymer", "O00001-2"),
        ("polymer", "DNA D"),
        ("polymer", "RNA R"),
        ("branched", "oligosaccharide NAG-NAG-BMA-MAN-MAN"),
        ("branched", "oligosaccharide GAL-SIA"),
        ("non-polymer", "ADENOSINE-5'-TRIPHOSPHATE"),
        ("non-polymer", "ZINC ION"),
        ("non-polymer", "PROTOPORPHYRIN IX CONTAINING FE"),
        ("non-polymer", "ACETYL GROUP"),
        ("non-polymer", "ALANINE"),
        ("non-polymer", "METHYLAMINE"),
        ("non-polymer", ASPIRIN),
        ("non-polymer", "C[N+](C)(C)CC=CC#N"),
    ]
    assert [component.id for component in entities[0].sequence[:4]] == ["MET", "LYS", "TPO", "ASN"]
    assert [component.type for component in entities[6].sequence[:3]] == [
        *["D-saccharide, beta linking"] * 3
    ]
    assert entities[3].sequence[1].type == "D-peptide linking"
    assert entities[3].sequence[0].type == "peptide linking"
    assert entities[14].sequence[0].descriptors[0].value == ASPIRIN
    links = [
        (link.num1, link.atom_id1, link.num2, link.atom_id2) for link in entities[6].branch_links
    ]
    assert links == [(1, "O4", 2, "C1"), (2, "O4", 3, "C1"), (3, "O3", 4, "C1"), (3, "O6", 5, "C1")]


def test_polymers_have_their_sequences(mixed: PredictedStructure) -> None:
    rows = category(mixed, "entity_poly")
    assert [row["type"] for row in rows][4:] == ["polydeoxyribonucleotide", "polyribonucleotide"]
    exact = [row["pdbx_seq_one_letter_code"] for row in rows]
    assert exact[0] == PEPTIDE[:2] + "(TPO)" + PEPTIDE[3:]
    assert exact[3:] == ["G(DAL)G", "(DA)(DC)(DG)(DT)(DN)", "ACGUN"]
    parents = [row["pdbx_seq_one_letter_code_can"] for row in rows]
    assert parents == [PEPTIDE, "GPCAGSCK", "K", "GAG", "ACGTN", "ACGUN"]
    assert [row["nstd_monomer"] for row in rows] == ["yes", "no", "no", "yes", "no", "no"]
    assert rows[0]["pdbx_strand_id"] == "A,B"
    assert len(category(mixed, "entity_poly_seq")) == len("".join(parents))


def test_proteins_refer_to_uniprot(mixed: PredictedStructure) -> None:
    """With the range that the input names, or whole; a name of another database is none."""
    entities = read_text(mixed).entities
    found = [
        (r.accession, r.isoform, r.align_begin, r.align_end)
        for entity in entities
        for r in entity.references
    ]
    assert found == [
        ("P12345", None, 5, 22),
        ("Q9JLM8", None, 1, 18),
        ("O00001", "O00001-2", 1, 3),
    ]
    rows = category(mixed, "struct_ref_seq")
    assert [(row["pdbx_strand_id"], row["db_align_beg"], row["db_align_end"]) for row in rows] == [
        ("A", "5", "22"),
        ("B", "1", "18"),
        ("D1", "1", "3"),
    ]
    origins = [row["origin"] for row in category(mixed, "ma_target_entity")]
    assert origins[:4] == ["reference database", "designed", "designed", "reference database"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("P12345", Reference("P12345", "", (1, 10))),
        ("P12345:11-20", Reference("P12345", "", (11, 20))),
        ("P12345:11-21", Reference("P12345", "", None)),
        ("P12345-3:2-11", Reference("P12345", "P12345-3", (2, 11))),
        ("P12345-PRO_0000000001", Reference("P12345", "", None)),
        ("A0A024R1R8", Reference("A0A024R1R8", "", (1, 10))),
        ("", None),
        ("TP53", None),
        ("P12345; DROP", None),
    ],
)
def test_reference_parse(name: str, expected: Reference | None) -> None:
    assert Reference.parse(name, 10) == expected


def test_modelcif_knows_the_program_and_the_protocol(mixed: PredictedStructure) -> None:
    system = read_text(mixed)
    assert [(program.name, program.version) for program in system.software] == [
        ("foldcp", version("foldcp")),
        ("Boltz-2", "sha256:abc"),
    ]
    ((step,),) = [protocol.steps for protocol in system.protocols]
    assert step.method_type == "modeling" and step.details == "made by nobody"
    assert len(step.input_data) == len(system.entities)
    assert only_model(system) in step.output_data
    parameters = {p.name: p.value for p in step.software[0].parameters}
    assert parameters == {"seed": 7, "precision": "bf16"}


def test_modelcif_reads_the_confidence(mixed: PredictedStructure) -> None:
    scores = mixed.scores
    assert scores is not None
    layout = mixed.layout
    metrics = only_model(read_text(mixed)).qa_metrics

    def of(mode: str, type: str) -> list[Any]:
        return [metric for metric in metrics if (metric.mode, metric.type) == (mode, type)]

    whole = {type: of("global", type)[0].value for type in ("pLDDT", "pTM", "ipTM")}
    expected = {"pLDDT": 100 * mixed.plddt.mean(), "pTM": scores.ptm, "ipTM": scores.iptm}
    assert whole == pytest.approx(expected, abs=6e-4)
    local = of("local", "pLDDT")
    assert len(local) == 2 * len(PEPTIDE) + 8 + 1 + 3 + 5 + 5
    chains = {asym: i for i, asym in enumerate(layout.chain_names)}
    for metric in local:
        is_token = (layout.token_chain == chains[metric.residue.asym.id]) & (
            layout.token_residue == metric.residue.seq_id
        )
        assert metric.value == pytest.approx(100 * mixed.plddt[is_token].mean(), abs=6e-4)
    ligands = {
        metric.feature.asym_units[0].id: metric.value for metric in of("per-feature", "pLDDT")
    }
    assert list(ligands) == ["G1", "G2", "L", "L2", "Z", "H", "cap", "S", "S2"]
    for name, value in ligands.items():
        mean = mixed.plddt[layout.token_chain == chains[name]].mean()
        assert value == pytest.approx(100 * mean, abs=6e-4)
    cap = next(
        m.feature for m in metrics if m.mode == "per-feature" and len(m.feature.asym_units) > 1
    )
    assert [asym.id for asym in cap.asym_units] == ["cap", "cap_2", "cap_3"]
    ptm = [metric.value for metric in of("per-feature", "pTM")]
    assert ptm == pytest.approx(scores.chain_ptm.tolist(), abs=6e-4)
    pairs = {
        tuple(chains[feature.asym_units[0].id] for feature in (m.feature1, m.feature2)): m.value
        for m in of("per-feature-pair", "ipTM")
    }
    C = len(chains)
    assert len(pairs) == C * (C - 1)
    for (a, b), value in pairs.items():
        assert value == pytest.approx(float(scores.pair_iptm[a, b]), abs=6e-4)


def test_scores_that_do_not_exist_are_left_out(mixed: PredictedStructure) -> None:
    scores = mixed.scores
    assert scores is not None
    nothing = np.full_like(scores.pair_iptm, np.nan)
    bare = replace(scores, pair_iptm=nothing, chain_ptm=np.full_like(scores.chain_ptm, np.nan))
    found = {
        metric.type for metric in only_model(read_text(replace(mixed, scores=bare))).qa_metrics
    }
    assert found == {"pLDDT", "pTM", "ipTM"}
    tables = structure_tables(replace(mixed, scores=bare))
    assert "ma_qa_metric_feature_pairwise" not in tables
    assert tables["ma_qa_metric"]["id"] == [1, 2, 3, 4, 5]
    tables = structure_tables(replace(mixed, scores=None))
    assert tables["ma_qa_metric"]["id"] == [1, 2, 3]


def test_struct_conn_has_the_bonds_of_the_input(mixed: PredictedStructure) -> None:
    def end(row: dict[str, str], number: int) -> tuple[str, int, str]:
        prefix = f"ptnr{number}"
        residue = int(row[f"{prefix}_auth_seq_id"])
        return row[f"{prefix}_auth_asym_id"], residue, row[f"{prefix}_label_atom_id"]

    rows = category(mixed, "struct_conn")
    found = {frozenset((end(row, 1), end(row, 2))): row["conn_type_id"] for row in rows}
    expected = {frozenset((b.atom1, b.atom2)): "covale" for b in GLYCAN_BONDS + OTHER_BONDS}
    expected[frozenset((("A", 10, "SG"), ("A", 17, "SG")))] = "disulf"
    expected[frozenset((("Z", 1, "ZN"), ("A", 1, "SD")))] = "metalc"
    expected[frozenset((("cyc", 1, "N"), ("cyc", 8, "C")))] = "covale"
    expected[frozenset((("R", 1, "P"), ("R", 5, "O3'")))] = "covale"
    assert found == expected and len(rows) == len(found)
    assert {row["details"] for row in rows} == {""}  # not by their length
    cap = next(row for row in rows if row["ptnr1_label_asym_id"] == "cap_2")
    assert (cap["ptnr1_label_seq_id"], cap["ptnr2_label_asym_id"]) == ("", "cap_3")


def test_struct_conn_has_disulfides_by_their_length() -> None:
    """2.05 Å apart; not 1.5 or 2.6 Å, nor where three sulfurs are near each other."""
    complex = Complex("s", (protein("A", "CCCCCCCCC"), protein("B", "C")))
    structure = structure_of(complex)
    coords = structure.coords.copy()
    sulfurs = [i for i, name in enumerate(structure.layout.atom_name) if name == "SG"]
    for pair, length in (((0, 9), 2.05), ((1, 2), 1.5), ((3, 4), 2.6), ((5, 6), 2.0)):
        first, second = (sulfurs[i] for i in pair)
        coords[first] = (1000 * (1 + pair[0]), 0, 0)
        coords[second] = coords[first] + np.array([0, length, 0])
    coords[sulfurs[7]] = coords[sulfurs[5]] + np.array([0, -2, 0])
    rows = category(replace(structure, coords=coords), "struct_conn")
    assert [
        (row["conn_type_id"], row["ptnr1_auth_seq_id"], row["ptnr2_auth_asym_id"], row["details"])
        for row in rows
    ] == [("disulf", "1", "B", "found by its length, not given in the input")]
    assert float(rows[0]["pdbx_dist_value"]) == pytest.approx(2.05, abs=1e-3)


@pytest.mark.parametrize("format", ["cif", "bcif"])
def test_biotite_reads_bonds_and_charges(
    format: StructureFormat, mixed: PredictedStructure, tmp_path: Path
) -> None:
    path = tmp_path / f"mixed.{format}"
    write_structure(path, mixed, format)
    file: Any = pdbx.BinaryCIFFile.read(path) if format == "bcif" else pdbx.CIFFile.read(path)
    atoms: Any = pdbx.get_structure(file, model=1, include_bonds=True, extra_fields=["charge"])
    layout = mixed.layout
    assert np.abs(atoms.coord - mixed.coords).max() < 6e-4
    is_modified = atoms.hetero
    assert (atoms.charge[is_modified] == layout.atom_charge[is_modified]).all()
    assert (atoms.charge[~is_modified] == 0).all()
    assert {-1, 1, 2} <= set(atoms.charge.tolist())
    found = {tuple(sorted(bond)) for bond in atoms.bonds.as_array()[:, :2].tolist()}
    assert {tuple(sorted(bond)) for bond in layout.covalent.tolist()} <= found
    # Bonds within ligands and modified residues are those that the network saw.
    assert {tuple(sorted(bond)) for bond in layout.bonds[:, :2].tolist()} <= found
    degree = np.bincount(atoms.bonds.as_array()[:, :2].ravel(), minlength=len(atoms))
    assert set(np.flatnonzero(degree == 0)) <= set(np.flatnonzero(atoms.element == "ZN"))


def test_gemmi_reads_connections(mixed: PredictedStructure) -> None:
    block = gemmi.cif.read_string(cif_text(mixed)).sole_block()
    structure = gemmi.make_structure_from_block(block)
    types = [connection.type.name for connection in structure.connections]
    assert sorted(types) == sorted(["Covale"] * 10 + ["Disulf", "MetalC"])
    for connection in structure.connections:
        for partner in (connection.partner1, connection.partner2):
            assert structure[0].find_cra(partner).atom is not None
    assert {entity.entity_type.name for entity in structure.entities} == {
        "Polymer",
        "NonPolymer",
        "Branched",
    }


def test_components_have_their_atoms_and_bonds(mixed: PredictedStructure) -> None:
    """Each atom of a component once, and every atom of it in the model among these."""
    atoms = [(row["comp_id"], row["atom_id"]) for row in category(mixed, "chem_comp_atom")]
    assert len(atoms) == len(set(atoms))
    layout = mixed.layout
    assert set(atoms) == {
        (layout.token_name[token], name)
        for token, name in zip(layout.atom_token.tolist(), layout.atom_name, strict=True)
    }
    assert ("ALA", "OXT") in atoms  # of the ligand
    bonds = category(mixed, "chem_comp_bond")
    orders: dict[str, list[str]] = {}
    for row in bonds:
        orders.setdefault(row["comp_id"], []).append(row["value_order"])
        assert (row["comp_id"], row["atom_id_1"]) in set(atoms)
        assert (row["comp_id"], row["atom_id_2"]) in set(atoms)
    assert sorted(orders["LIG1"]) == ["arom"] * 6 + ["doub"] * 2 + ["sing"] * 5
    assert sorted(orders["LIG2"]) == ["doub"] + ["sing"] * 6 + ["trip"]
    assert orders["TPO"].count("doub") == 2  # P=O and C=O
    rows = {row["id"]: row for row in category(mixed, "chem_comp")}
    assert (rows["LIG1"]["ma_provenance"], rows["TPO"]["ma_provenance"]) == (
        "CCD local",
        "CCD Core",
    )
    assert (rows["ALA"]["mon_nstd_flag"], rows["TPO"]["mon_nstd_flag"]) == ("n", "y")
    assert rows["TPO"]["type"] == "L-peptide linking"


def test_atoms_of_a_residue_have_different_names(mixed: PredictedStructure) -> None:
    rows = category(mixed, "atom_site")
    names = [(r["auth_asym_id"], r["auth_seq_id"], r["label_atom_id"]) for r in rows]
    assert len(names) == len(set(names))


def as_text(column: Any) -> list[str]:
    return column.as_array(str).tolist()


def test_bcif_holds_what_cif_holds(mixed: PredictedStructure) -> None:
    text = pdbx.CIFFile.read(io.StringIO(cif_text(mixed))).block
    binary = pdbx.BinaryCIFFile.read(io.BytesIO(bcif_bytes(mixed))).block
    assert list(text) == list(binary)
    for name in text:
        assert list(text[name]) == list(binary[name])
        for column, values in text[name].items():
            other = binary[name][column]
            if other.data.array.dtype.kind == "f":
                np.testing.assert_allclose(
                    other.as_array(float, np.nan), values.as_array(float, np.nan), atol=1e-9
                )
            else:
                assert as_text(other) == as_text(values), (name, column)


def test_write_structure_is_reproducible(mixed: PredictedStructure, tmp_path: Path) -> None:
    for format in FORMATS:
        for name in ("a", "b"):
            write_structure(tmp_path / name, mixed, format)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    write_structure(tmp_path / "a", mixed, "cif.gz")
    content = (tmp_path / "a").read_bytes()
    assert content[4:8] == bytes(4)  # the time
    assert gzip.decompress(content).decode() == cif_text(mixed)


@pytest.mark.parametrize(
    "text", ["中文", 'it\'s "both"', ";x", "a b", "loop_", "data_", "?", ".", "x" * 2000, "é\n;é"]
)
def test_odd_texts_are_read_alike(text: str, tmp_path: Path) -> None:
    """Names of a complex and of chains, titles and accessions, in text and binary files."""
    chains = (protein(text, "GS", accession=text), Chain("B", "ligand", ccd=("ZN",)))
    structure = structure_of(Complex(text, chains, title=text))
    titles = set()
    names = set()
    for format in FORMATS:
        path = tmp_path / f"odd.{format}"
        write_structure(path, structure, format)
        system = read(path)
        titles.add(system.title)
        names.add(system.asym_units[0].id)
        assert len(list(only_model(system).get_atoms())) == 11
    assert len(titles) == len(names) == 1


def test_chains_whose_names_are_cut_alike_stay_apart() -> None:
    chains = (
        protein("x" * 2000, "GS"),
        protein("x" * 2001, "AC"),
        protein("x" * 897 + "..._2", "K"),
    )
    system = read_text(structure_of(Complex("long", chains)))
    labels = [asym.id for asym in system.asym_units]
    assert len(set(labels)) == 3
    assert [len(asym.entity.sequence) for asym in system.asym_units] == [2, 2, 1]


@pytest.mark.parametrize("format", FORMATS)
def test_large_structures_are_written_in_seconds(format: StructureFormat, tmp_path: Path) -> None:
    """14,000 residues in 100 chains with all pairs' scores: names of two letters."""
    layout = synthetic_layout([("protein", ["SER"] * 140) for _ in range(100)])
    rng = np.random.default_rng(0)
    A = len(layout.atom_token)
    structure = PredictedStructure(
        layout,
        rng.normal(0, 100, (A, 3)).astype(np.float32),
        np.full(len(layout.token_chain), 0.5, np.float32),
        "large",
        scores=synthetic_scores(layout, rng),
    )
    path = tmp_path / f"large.{format}"
    start = time.perf_counter()
    write_structure(path, structure, format)
    seconds = time.perf_counter() - start
    assert seconds < 20, f"{seconds:.1f} s"  # about 1 s on an idle machine
    system = read(path)
    model = only_model(system)
    assert sum(1 for _ in model.get_atoms()) == A == 84_000
    assert [asym.id for asym in system.asym_units][61:64] == ["BJ", "BK", "BL"]
    assert sum(metric.mode == "per-feature-pair" for metric in model.qa_metrics) == 100 * 99


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases for development are not here")
def test_the_glycan_of_the_cases() -> None:
    (path,) = (CASES / "16_glycan_and_covalent_bonds/in").glob("*.y*ml")
    structure = structure_of(only_complex(InputSpec(path)))
    assert len(category(structure, "struct_conn")) == 7
    assert len(category(structure, "pdbx_entity_branch_link")) == 5
    assert [entity.type for entity in read_text(structure).entities] == [
        "polymer",
        "branched",
        "branched",
    ]
