"""FASTA and ColabFold CSV: each record is a complex, its chains joined by colons."""

from pathlib import Path

import pytest

from foldcp.complex import Complex, InvalidComplex, Record
from tests.support.inputs import read_input

SHARED = Path(__file__).parents[3] / "shared" / "data"


def _read(folder: Path, name: str, content: str, msas: Path | None = None) -> list[Record]:
    (folder / name).write_text(content)
    return list(read_input(folder / name, msas=msas))


def _chains(record: Record) -> list[tuple[str, str, str]]:
    assert isinstance(record, Complex), record
    return [(chain.name, chain.sequence, chain.accession) for chain in record.chains]


def test_fasta_record_is_a_complex(tmp_path: Path) -> None:
    text = ">sp|P12345|A_B   one chain\nmktayiak\nQR*\n\n>dimer two: and more\nMKT:\nGSHW\n>\nACD\n"
    one, two, last = _read(tmp_path, "x.fasta", text)
    assert (one.name, one.title, one.source) == ("P12345", "one chain", "x.fasta")
    assert _chains(one) == [("A", "MKTAYIAKQR", "P12345")]
    assert (two.name, two.title) == ("dimer", "two: and more")
    assert _chains(two) == [("A", "MKT", ""), ("B", "GSHW", "")]
    assert last.name == "record 3"


def test_group_by_entity_keeps_the_names_of_copies(tmp_path: Path) -> None:
    [record] = _read(tmp_path, "c.csv", "id,sequence\nx,MKT:GSH:MKT:ACD\n")
    assert _chains(record) == [
        ("A", "MKT", ""),
        ("C", "MKT", ""),
        ("B", "GSH", ""),
        ("D", "ACD", ""),
    ]


@pytest.mark.parametrize(
    ("sequence", "reason"),
    [
        ("MKT:G5H", "chain B: invalid letters '5' in the protein sequence"),
        ("MK-T.", "chain A: invalid letters '-.' in the protein sequence"),
        ("MK*T", "chain A: invalid letters '*' in the protein sequence"),
        ("MKT:", "chain B: the protein sequence is empty"),
        ("MKT::GSH", "chain B: the protein sequence is empty"),
        ("", "chain A: the protein sequence is empty"),
        (
            "MKT:ACGTACGTACGTACGTACGTAC",
            "chain B: the letters are those of a nucleic acid",
        ),
        ("ACGUACGUACGUACGUACGU", "chain A: the letters are those of a nucleic acid"),
    ],
)
def test_read_makes_a_bad_record_invalid_and_reads_the_others(
    tmp_path: Path, sequence: str, reason: str
) -> None:
    for records in (
        _read(tmp_path, "c.csv", f"id,sequence\nbad,{sequence}\ngood,MKT:ACD\n"),
        _read(tmp_path, "c.fasta", f">bad\n{sequence}\n>good\nMKT:ACD\n"),
    ):
        bad, good = records
        assert isinstance(bad, InvalidComplex)
        assert bad.name == "bad"
        assert bad.reason.startswith(reason)
        assert len(_chains(good)) == 2


def test_fasta_takes_short_or_low_complexity_sequences_for_proteins(tmp_path: Path) -> None:
    records = _read(
        tmp_path,
        "c.csv",
        f"id,sequence\ntag,ACGTACGTACGTACGTACG\npoly,{'G' * 30}\nsilk,{'GAGAGS' * 5}\n",
    )
    assert all(isinstance(record, Complex) for record in records)


def test_read_of_a_very_large_complex(tmp_path: Path) -> None:
    [record] = _read(tmp_path, "c.csv", f"id,sequence\nx,{':'.join(['GSHW' * 8600] * 4)}\n")
    assert isinstance(record, Complex)
    assert record.num_residues == 137_600


def test_colabfold_with_other_columns_and_damaged_rows(tmp_path: Path) -> None:
    text = 'note,Sequence,ID\n"a, b","MKT:\nGSH",one\nx,MKT\n,ACD,\n'
    one, cut, nameless = _read(tmp_path, "c.csv", text)
    assert (one.name, [letters for _, letters, _ in _chains(one)]) == (
        "one",
        ["MKT", "GSH"],
    )
    assert isinstance(cut, InvalidComplex)
    assert (cut.name, cut.reason) == ("row 2", "row 2 has 2 columns, the table 3")
    assert nameless.name == "row 3"


def test_boltz_yaml_msas(tmp_path: Path) -> None:
    folder = tmp_path / "msas"
    folder.mkdir()
    (folder / "P12345.csv").touch()
    one, two = _read(tmp_path, "x.fasta", ">P12345\nMKT\n>two\nMKT:GSH\n", folder)
    assert isinstance(one, Complex)
    assert isinstance(two, Complex)
    assert one.chains[0].msa == folder / "P12345.csv"
    assert one.notes == ()
    assert two.notes == ("msa: no alignment for chain A, chain B",)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real inputs is not here")
def test_colabfold_csv_and_boltz_yaml_of_one_complex_agree() -> None:
    folder = SHARED / "complexes" / "3g5o"
    [table] = read_input(folder / "input.colabfold.csv")
    [yaml] = read_input(folder / "input.yaml")
    assert table.name == "3G5O_A_3G5O_B"
    assert _chains(table) == _chains(yaml)
    assert isinstance(yaml, Complex)
    assert [chain.msa for chain in yaml.chains] == [
        (folder / "A.csv").resolve(),
        (folder / "B.csv").resolve(),
    ]


def test_fasta_names_records_that_begin_alike_by_the_whole_header(
    tmp_path: Path,
) -> None:
    text = (
        ">pair one\nMKT : GSH\n>pair  two \nMKT:\nGSHW\n>other text\nMKT:MKT\n>sp|P12345|A "
        "x\nMK\n>sp|P12345|B\nMW\n"
    )
    records = _read(tmp_path, "x.fasta", text)
    assert [record.name for record in records] == [
        "pair one",
        "pair two",
        "other",
        "sp|P12345|A x",
        "sp|P12345|B",
    ]
    one, two, other, first, _ = records
    assert isinstance(one, Complex)
    assert "name: whole header, as several records begin with 'pair'" in one.notes
    assert isinstance(other, Complex)
    assert not any(note.startswith("name") for note in other.notes)
    assert isinstance(first, Complex)
    assert first.chains[0].accession == "P12345"
    assert len(_chains(two)) == 2


def test_fasta_refuses_equal_headers(tmp_path: Path) -> None:
    one, two = _read(tmp_path, "x.fasta", ">pair x\nMKT\n>pair x\nGSH\n")
    assert isinstance(one, Complex)
    assert isinstance(two, InvalidComplex)
    assert two.reason == "an earlier record is named 'pair x' too"


def test_read_takes_free_text_between_bars_for_plain_fasta(tmp_path: Path) -> None:
    text = ">k1|protein kinase alpha|human\nMKT\n>k2|protein phosphatase|human\nGSH\n"
    assert [record.name for record in _read(tmp_path, "x.fasta", text)] == ["k1", "k2"]


def test_fasta_notes_records_of_single_chains(tmp_path: Path) -> None:
    note = "chains: record folded alone; join the chains of one complex by ':'"
    many = "".join(f">A{number}\nMKT\n" for number in range(101))
    pair = ">A\nMKT\n>B\nGSH:MKT\n"
    for text, expected in (
        (">A\nMKT\n>B\nGSH\n", [note]),
        (">A\nMKT\n", []),
        (pair, []),
        (many, []),
    ):
        for record in _read(tmp_path, "x.fasta", text):
            assert isinstance(record, Complex)
            assert [note for note in record.notes if note.startswith("chains")] == expected


CHAI = (
    ">protein|name=long-one\nMKTAYIAK\n>ligand|name=drug\nC[C@H](N)\nC(=O)O\n>Protein | "
    "name=B\nmktayiak\n"
)


def test_chai_fasta_is_one_complex(tmp_path: Path) -> None:
    text = CHAI + ">dna|name=D\nGATTACA\n>rna|name=R\nGAUUACA\n"
    [record] = _read(tmp_path, "job.fasta", text)
    assert isinstance(record, Complex)
    assert record.name == "job"
    assert [
        (chain.name, chain.kind, chain.sequence or chain.smiles) for chain in record.chains
    ] == [
        ("long-one", "protein", "MKTAYIAK"),
        ("B", "protein", "MKTAYIAK"),
        ("drug", "ligand", "C[C@H](N)C(=O)O"),
        ("D", "dna", "GATTACA"),
        ("R", "rna", "GAUUACA"),
    ]
    assert record.notes == ("msa: no alignment for chain long-one, chain B",)
    [plain] = _read(tmp_path, "job.fasta", ">protein|A\nMKT\n>rna|B\nGAU\n")
    assert isinstance(plain, Complex)
    assert [chain.kind for chain in plain.chains] == ["protein", "rna"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (">glycan|name=G\nNAG(4-1 NAG)\n", "chain G: glycans are not supported here"),
        (
            ">protein|name=M\nMK(SEP)T\n",
            "chain M: modified residues in parentheses or brackets are not supported",
        ),
        (
            ">protein|name=M\nMK[SEP]T\n",
            "chain M: modified residues in parentheses or brackets are not supported",
        ),
        (
            ">peptide|name=P\nMKT\n",
            "invalid header '>peptide|name=P'; expected '>KIND|name=NAME'",
        ),
        (
            ">protein|name=\nMKT\n",
            "invalid header '>protein|name='; expected '>KIND|name=NAME'",
        ),
        (">P12345\nMKT\n", "invalid header '>P12345'; expected '>KIND|name=NAME'"),
        (">protein|name=drug\nMKT\n", "complex job: two chains are named 'drug'"),
    ],
)
def test_read_of_unsupported_chai_fasta_says_what(tmp_path: Path, record: str, reason: str) -> None:
    (tmp_path / "job.fasta").write_text(CHAI + record)
    with pytest.raises(ValueError) as caught:
        read_input(tmp_path / "job.fasta")
    assert str(caught.value).startswith(f"{tmp_path / 'job.fasta'}: {reason}")


def test_read_refuses_too_many_chains(tmp_path: Path) -> None:
    [record] = _read(tmp_path, "c.csv", f"id,sequence\nx,{'M:' * 100_000}M\n")
    assert isinstance(record, InvalidComplex)
    assert record.reason == "100,001 chains exceed the maximum of 100,000"


def test_names_of_a_protein_are_those_in_its_header(tmp_path: Path) -> None:
    (tmp_path / "f.fasta").write_text(
        ">sp|P41182|BCL6_HUMAN B-cell lymphoma 6 protein OS=Homo sapiens OX=9606 GN=BCL6 PE=1\n"
        "MKTAY\n>P2 a plain header\nGSH\n>P3 both OS=x GN=NO\nMKT:GSH\n"
    )
    records = list(read_input(tmp_path / "f.fasta"))
    named = [
        [(chain.gene, chain.protein_name) for chain in record.chains]
        for record in records
        if isinstance(record, Complex)
    ]
    assert named == [[("BCL6", "B-cell lymphoma 6 protein")], [("", "")], [("", ""), ("", "")]]
