"""Alignments of other programs, matched by their queries."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from foldcp.features.msa.parse import UNPAIRED
from foldcp.features.msa.taxonomy import taxonomy_key
from foldcp.pipeline.msa_search.importing import ImportedAlignments
from foldcp.pipeline.msa_search.search import AlignedRow, FoundAlignment, SearchFailure
from foldcp.pipeline.msa_search.stockholm import parse_stockholm
from foldcp.pipeline.msa_search.store import MsaStore

ONE = "MKTAYIAK"
TWO = "GSHMRYAAC"
STOCKHOLM = """# STOCKHOLM 1.0
#=GS sp|P1|A_HUMAN/1-9 DE [subseq from] Name OS=Homo sapiens OX=9606
query              MKT-AY
sp|P1|A_HUMAN/1-9  MRTGA-
#=GC RF            xxx.xx

query              IAK
sp|P1|A_HUMAN/1-9  I.R
//
"""


def imported(folder: Path, sequence: str = ONE) -> list[tuple[str, int]]:
    [found] = ImportedAlignments((folder,)).search([sequence])
    assert isinstance(found, FoundAlignment), found
    return [(row.text, row.key) for row in found.rows]


def test_stockholm_becomes_rows_relative_to_the_query() -> None:
    rows = parse_stockholm(STOCKHOLM.encode(), "x")
    assert [row.text for row in rows] == [ONE, "MRTgA-I-R"]
    assert taxonomy_key(rows[1].header) == 9606
    with pytest.raises(ValueError, match="x: b has 2 columns, the first sequence 3"):
        parse_stockholm(b"a MKT\nb MK\n", "x")


def test_alphafold_2_files_are_merged_with_species_of_uniprot(tmp_path: Path) -> None:
    folder = tmp_path / "any_name"
    folder.mkdir()
    (folder / "uniprot_hits.sto").write_text(STOCKHOLM)
    (folder / "uniref90_hits.sto").write_text(f"q {ONE}\nU_OX=5/1-8 MRT---AK\n")
    (folder / "bfd_uniclust_hits.a3m").write_text(f">q\n{ONE}\n>b OX=562\nMRT---AK\n>c\n---AYIAK\n")
    assert imported(tmp_path) == [
        (ONE, -1),
        ("MRTgA-I-R", 9606),
        ("MRT---AK", UNPAIRED),
        ("---AYIAK", UNPAIRED),
    ]


def test_alphafold_3_files_are_merged(tmp_path: Path) -> None:
    (tmp_path / "non_pairing.a3m").write_text(f">q\n{ONE}\n>a_1 OX=7\n-KTAYIAK\n")
    (tmp_path / "pairing.a3m").write_text(f">q\n{ONE}\n>UniRef100_A0_562/1-7\nMK-AYIAK\n")
    assert imported(tmp_path) == [(ONE, -1), ("MK-AYIAK", 562), ("-KTAYIAK", UNPAIRED)]


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("wrong.a3m", f">q\n{ONE}\n>x TaxID=10\nMKTaAYI-K\n", 10),
        ("x.a3m.gz", f">q\n{ONE}\n>x OX=10\nMKTaAYI-K\n", 10),
        ("x.csv", f"key,sequence\n-1,{ONE}\n0,MKTaAYI-K\n", UNPAIRED),
        ("x.csv", f"sequence,key\n{ONE},\nMKTaAYI-K,\n", UNPAIRED),
        ("two.a3m", f">1\n{TWO}\n\0>2\n{ONE}\n>x\nMKTaAYI-K\n\0", UNPAIRED),
        ("dimer.a3m", f"#8,9\t1,1\n>1\t2\n{ONE}{TWO}\n>x\nMKTaAYI-K{'-' * 9}\n", UNPAIRED),
        ("x.sto", "q MKT-AYIAK\nx/1-8 MKTAAYI-K\n#=GS x/1-8 DE y OX=10\n", 10),
    ],
)
def test_single_files(tmp_path: Path, name: str, content: str, key: int) -> None:
    data = content.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert imported(tmp_path) == [(ONE, -1), ("MKTaAYI-K", key)]


def test_keys_of_a_table_that_rise_are_numbers_of_rows(tmp_path: Path) -> None:
    rows = [ONE, "MKTAYI-K", "MK-AYI-K", "MK-AYIAK"]
    for keys, expected in (
        ([-1, 0, 1, 5], [-1, -1, -1, -1]),  # as Boltz numbers what a server has paired
        ([-1, 0, -1, 5], [-1, -1, -1, -1]),
        ([-1, 9606, 562, 10090], [-1, 9606, 562, 10090]),
        ([-1, 562, 562, 9606], [-1, 562, 562, 9606]),
    ):
        lines = [f"{key},{row}\n" for key, row in zip(keys, rows, strict=True)]
        (tmp_path / "x.csv").write_text("key,sequence\n" + "".join(lines))
        assert [key for _, key in imported(tmp_path)] == expected


def test_keys_of_a_folder_of_alignments_are_kept(tmp_path: Path) -> None:
    found = FoundAlignment(ONE, (AlignedRow(ONE), AlignedRow("MKTAYI-K", 562)), "x")
    with MsaStore(tmp_path / "old", {"method": "x"}) as store:
        store.add(found)
    assert imported(tmp_path / "old") == [(ONE, -1), ("MKTAYI-K", 562)]


def test_names_alone_match_nothing_and_unreadable_files_are_told(tmp_path: Path) -> None:
    (tmp_path / f"{ONE}.a3m").write_text(f">{ONE}\n{TWO}\n")
    (tmp_path / "bad.a3m").write_text("text\n")
    search = ImportedAlignments((tmp_path,))
    [found] = search.search([ONE])
    assert found == SearchFailure(ONE, f"no alignment of it in {tmp_path}")
    assert len(search.unreadable) == 1 and "bad.a3m" in search.unreadable[0]


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (">sp|P69905|HBA_HUMAN Hemoglobin OX=9606 GN=HBA1", 9606),
        ("UniRef90_A0 n=1 Tax=E TaxID=562 RepID=X_ECOLI", 562),
        ("UniRef100_Q1_9606/1-20", 9606),
        ("MGYP00123/1-20", UNPAIRED),
        ("1abc_A", UNPAIRED),
        ("101", UNPAIRED),
        ("", UNPAIRED),
    ],
)
def test_taxonomy_keys(header: str, key: int) -> None:
    assert taxonomy_key(header) == key
    assert taxonomy_key(header.encode()) == key


def test_mnemonics_are_keys_of_their_own() -> None:
    human = taxonomy_key("sp|P69905|HBA_HUMAN/1-20")
    assert human == taxonomy_key("HBB_HUMAN") != taxonomy_key("HBB_MOUSE")
    assert 2**62 <= human < 2**63
