"""What rows of CORUM, Complex Portal and hu.MAP say of a complex besides its subunits."""

import json
from pathlib import Path
from typing import Any

import pytest

from foldcp.complex import Complex, InvalidComplex
from tests.support.inputs import read_input

FASTA = """\
>sp|P41182|BCL6_HUMAN B-cell lymphoma 6 protein OS=Homo sapiens OX=9606 GN=BCL6 PE=1 SV=1
MKTAY
>P56524
GSHWK
"""
CORUM = {
    "ComplexID": "1",
    "ComplexName": "BCL6-HDAC4 complex",
    "Organism": "Human",
    "subunits(UniProt IDs)": "P41182;P56524:2-4",
    "Synonyms": "first; second",
    "Cell_line": "U2OS",
    "Protein_complex_purification_method": "MI:0007-anti tag coimmunoprecipitation",
    "GO_ID": "GO:0006265;GO:0045892",
    "GO_description": "DNA topological change;negative regulation, DNA-templated",
    "FunCat_ID": "10.01.09.05;70.10",
    "FunCat_description": "DNA conformation modification;nucleus",
    "PubMed_ID": "11929873.0",
    "Complex_comment": "Recruits a repressor.",
    "Disease_comment": "None",
    "subunits(Gene name)": "OLD;HDAC4",
    "subunitsProtein_name": "an old name;Histone deacetylase 4",
    "subunitsEntrez_IDs": "604;9759",
}
PORTAL = {
    "#Complex ac": "CPX-1",
    "Recommended name": "a complex",
    "Taxonomy identifier": "9606",
    "Identifiers (and stoichiometry) of molecules in complex": "P41182(2)|P56524(1)",
    "Expanded participant list": "P41182(2)|P56524(1)",
    "Aliases for complex": "one|two",
    "Evidence Code": "ECO:0000353(physical interaction evidence)",
    "Go Annotations": "GO:0016514(SWI/SNF complex (sort of))|GO:0006338(chromatin; remodeling)",
    "Cross references": "wwpdb:5VVR(subset)|pubmed:28249159(see-also)",
    "Description": "Transcriptional repression.",
}


def _read(folder: Path, cells: dict[str, str], **options: Any) -> Complex | InvalidComplex:
    (folder / "s.fasta").write_text(FASTA)
    table = folder / "db.tsv"
    table.write_text("\t".join(cells) + "\n" + "\t".join(cells.values()) + "\n")
    (record,) = read_input(table, folder / "s.fasta", **options)
    return record


def test_corum_fields_are_kept(tmp_path: Path) -> None:
    record = _read(tmp_path, CORUM)
    assert isinstance(record, Complex)
    entry = record.entry
    assert entry.synonyms == ("first", "second")
    assert entry.gene_names == ("OLD", "HDAC4")
    assert entry.cell_line == "U2OS"
    assert entry.go_ids == ("GO:0006265", "GO:0045892")
    assert entry.go_names == ("DNA topological change", "negative regulation, DNA-templated")
    assert entry.funcat_ids == ("10.01.09.05", "70.10")
    assert entry.pubmed_ids == ("11929873",)
    assert entry.comment == "Recruits a repressor."
    assert entry.disease == ""
    assert json.loads(entry.other) == {"subunitsentrezids": "604;9759"}


def test_names_of_chains_are_those_of_the_sequence_or_of_the_row(tmp_path: Path) -> None:
    record = _read(tmp_path, CORUM)
    assert isinstance(record, Complex)
    assert [(chain.gene, chain.protein_name) for chain in record.chains] == [
        ("BCL6", "B-cell lymphoma 6 protein"),
        ("HDAC4", "Histone deacetylase 4"),
    ]
    ranges = [(chain.entry_accession, chain.entry_range) for chain in record.chains]
    assert ranges == [("P41182", ""), ("P56524", "2-4")]


def test_names_are_not_given_to_subunits_that_they_are_not_listed_for(tmp_path: Path) -> None:
    record = _read(tmp_path, CORUM | {"subunits(Gene name)": "HDAC4"})
    assert isinstance(record, Complex)
    assert [chain.gene for chain in record.chains] == ["BCL6", ""]
    assert record.entry.gene_names == ("HDAC4",)


def test_complex_portal_fields_are_kept(tmp_path: Path) -> None:
    entry = _read(tmp_path, PORTAL).entry
    assert entry.synonyms == ("one", "two")
    assert entry.go_ids == ("GO:0016514", "GO:0006338")
    assert entry.go_names == ("SWI/SNF complex (sort of)", "chromatin; remodeling")
    assert entry.evidence == "ECO:0000353(physical interaction evidence)"
    assert entry.cross_references == ("wwpdb:5VVR(subset)", "pubmed:28249159(see-also)")
    assert entry.comment == "Transcriptional repression."


def test_humap_genes_and_confidence(tmp_path: Path) -> None:
    cells = {
        "HuMAP3_ID": "huMAP3_1.1",
        "ComplexConfidence": "4",
        "Uniprot_ACCs": "P41182 P56524",
        "genenames": "BCL6 HDAC4",
    }
    record = _read(tmp_path, cells)
    assert isinstance(record, Complex)
    assert record.entry.confidence == "4"
    assert [chain.gene for chain in record.chains] == ["BCL6", "HDAC4"]


@pytest.mark.parametrize("names", ["P99999;P41182", "P41182;P99999;P99999"])
def test_invalid_record_lists_accessions_without_a_sequence(names: str, tmp_path: Path) -> None:
    record = _read(tmp_path, CORUM | {"subunits(UniProt IDs)": names})
    assert isinstance(record, InvalidComplex)
    assert record.missing_accessions == ("P99999",)
    assert record.entry.cell_line == "U2OS"


def test_corum_json_has_the_fields_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "s.fasta").write_text(FASTA)
    genes = [("P41182", "OLD"), ("P56524", "HDAC4")]
    content = {
        "complex_id": 1,
        "complex_name": "a complex",
        "cell_line": "U2OS",
        "pmid": 11929873,
        "subunits": [
            {"swissprot": {"uniprot_id": name, "gene_name": gene}} for name, gene in genes
        ],
        "functions": [
            {"go": {"go_id": "GO:1", "go_name": "first"}},
            {"go": {"go_id": "GO:2"}},
        ],
    }
    (tmp_path / "corum.json").write_text(json.dumps([content, {**content, "complex_id": 2}]))
    record, _ = read_input(tmp_path / "corum.json", tmp_path / "s.fasta")
    assert isinstance(record, Complex)
    assert record.entry.cell_line == "U2OS"
    assert record.entry.pubmed_ids == ("11929873",)
    assert [chain.gene for chain in record.chains] == ["BCL6", "HDAC4"]
    assert record.entry.go_ids == ("GO:1", "GO:2")
