"""FASTA and ColabFold CSV: each record is a complex, its chains joined by colons."""

from pathlib import Path

import pytest

from foldcp.complex import Complex, Record, Unbuildable
from foldcp.datasets.reader import read

SHARED = Path(__file__).parents[2] / "shared" / "data"


def _read(folder: Path, name: str, content: str, msas: Path | None = None) -> list[Record]:
    (folder / name).write_text(content)
    return list(read(folder / name, msas=msas))


def _chains(record: Record) -> list[tuple[str, str, str]]:
    assert isinstance(record, Complex), record
    return [(chain.name, chain.sequence, chain.accession) for chain in record.chains]


def test_a_record_is_a_complex(tmp_path: Path) -> None:
    text = ">sp|P12345|A_B   one chain\nmktayiak\nQR*\n\n>dimer two: and more\nMKT:\nGSHW\n>\nACD\n"
    one, two, last = _read(tmp_path, "x.fasta", text)
    assert (one.name, one.title, one.source) == ("P12345", "one chain", "x.fasta")
    assert _chains(one) == [("A", "MKTAYIAKQR", "P12345")]
    assert (two.name, two.title) == ("dimer", "two: and more")
    assert _chains(two) == [("A", "MKT", ""), ("B", "GSHW", "")]
    assert last.name == "record 3"


def test_copies_are_side_by_side_and_keep_their_names(tmp_path: Path) -> None:
    [record] = _read(tmp_path, "c.csv", "id,sequence\nx,MKT:GSH:MKT:ACD\n")
    assert _chains(record) == [("A", "MKT", ""), ("C", "MKT", ""), ("B", "GSH", ""), ("D", "ACD", "")]


@pytest.mark.parametrize(
    ("sequence", "reason"),
    [
        ("MKT:G5H", "chain B: '5' is no letter of a protein sequence"),
        ("MK-T.", "chain A: '-.' is no letter of a protein sequence"),
        ("MK*T", "chain A: '*' is no letter of a protein sequence"),
        ("MKT:", "chain B: the protein sequence is empty"),
        ("MKT::GSH", "chain B: the protein sequence is empty"),
        ("", "chain A: the protein sequence is empty"),
        ("MKT:ACGTACGTACGTACGTACGTAC", "chain B: the letters are those of a nucleic acid"),
        ("ACGUACGUACGUACGUACGU", "chain A: the letters are those of a nucleic acid"),
    ],
)
def test_a_bad_record_is_a_row_and_the_others_are_read(tmp_path: Path, sequence: str, reason: str) -> None:
    for records in (
        _read(tmp_path, "c.csv", f"id,sequence\nbad,{sequence}\ngood,MKT:ACD\n"),
        _read(tmp_path, "c.fasta", f">bad\n{sequence}\n>good\nMKT:ACD\n"),
    ):
        bad, good = records
        assert isinstance(bad, Unbuildable)
        assert bad.name == "bad"
        assert bad.reason.startswith(reason)
        assert len(_chains(good)) == 2


def test_short_or_poor_proteins_are_no_dna(tmp_path: Path) -> None:
    records = _read(tmp_path, "c.csv", f"id,sequence\ntag,ACGTACGTACGTACGTACG\npoly,{'G' * 30}\nsilk,{'GAGAGS' * 5}\n")
    assert all(isinstance(record, Complex) for record in records)


def test_a_very_large_complex(tmp_path: Path) -> None:
    [record] = _read(tmp_path, "c.csv", f"id,sequence\nx,{':'.join(['GSHW' * 8600] * 4)}\n")
    assert isinstance(record, Complex)
    assert record.num_residues == 137_600


def test_other_columns_and_damaged_rows(tmp_path: Path) -> None:
    text = 'note,Sequence,ID\n"a, b","MKT:\nGSH",one\nx,MKT\n,ACD,\n'
    one, cut, nameless = _read(tmp_path, "c.csv", text)
    assert (one.name, [letters for _, letters, _ in _chains(one)]) == ("one", ["MKT", "GSH"])
    assert isinstance(cut, Unbuildable)
    assert (cut.name, cut.reason) == ("row 2", "row 2 has 2 columns, the table 3")
    assert nameless.name == "row 3"


def test_alignments(tmp_path: Path) -> None:
    folder = tmp_path / "msas"
    folder.mkdir()
    (folder / "P12345.csv").touch()
    one, two = _read(tmp_path, "x.fasta", ">P12345\nMKT\n>two\nMKT:GSH\n", folder)
    assert isinstance(one, Complex)
    assert isinstance(two, Complex)
    assert one.chains[0].msa == folder / "P12345.csv"
    assert one.comment == {}
    assert two.comment == {"msa": "no alignment for chain A, chain B"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real inputs is not here")
def test_the_csv_and_the_yaml_of_one_complex_agree() -> None:
    folder = SHARED / "complexes" / "3g5o"
    [table] = read(folder / "input.colabfold.csv")
    [yaml] = read(folder / "input.yaml")
    assert table.name == "3G5O_A_3G5O_B"
    assert _chains(table) == _chains(yaml)
    assert isinstance(yaml, Complex)
    assert [chain.msa for chain in yaml.chains] == [(folder / "A.csv").resolve(), (folder / "B.csv").resolve()]
