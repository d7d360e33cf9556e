"""Alignments as inputs: a protein, and ColabFold's complexes in all of its forms."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from foldcp.complex import Complex, InvalidComplex
from foldcp.datasets.reader import read
from foldcp.features.msa.chain_msas import MsaSettings, read_chain_msas
from foldcp.features.msa.parse import UNPAIRED
from tests.support.inputs import read_input

PROTEIN = ">q some text\nMKT\nAY\n>h\nMKT-Y\n"
# What ColabFold writes with paired and unpaired rows, and without pairing.
PAIRED = (
    "#3,2\t1,1\n>101\t102\nMKAGW\n>a\tb\nMKaa-GA\n>101\nMKA--\n>c\nMWA--\n>102\n---GW\n>d\n---AW\n"
)
UNPAIRED_ALONE = "#3,2\t1,1\n>101\nMKA--\n>c\nMWA--\n>102\n---GW\n>d\n---AW\n"


def one(path: Path) -> Complex:
    [record] = read(path)
    assert isinstance(record, Complex), record
    return record


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def keys(complex: Complex) -> list[list[int]]:
    return [msa.keys.tolist() for msa in read_chain_msas(complex, MsaSettings())]


@pytest.mark.parametrize("name", ["p.a3m", "p.A3M", "p.a3m.gz", "p.A3M.GZ", "p.a3m.xz"])
def test_a_protein_and_its_alignment(tmp_path: Path, name: str) -> None:
    packers = {".gz": gzip.compress, ".xz": lzma.compress}
    pack = packers.get(Path(name).suffix.lower(), bytes)
    path = write(tmp_path / name, pack(PROTEIN.encode()))
    complex = one(path)
    [chain] = complex.chains
    assert (complex.name, complex.source, complex.notes) == ("p", name, ())
    assert (chain.name, chain.sequence, chain.msa) == ("A", "MKTAY", path)
    assert keys(complex) == [[UNPAIRED, UNPAIRED]]


def test_paired_and_unpaired_rows_of_a_complex(tmp_path: Path) -> None:
    complex = one(write(tmp_path / "x.a3m", PAIRED))
    assert [(c.name, c.sequence) for c in complex.chains] == [("A", "MKA"), ("B", "GW")]
    assert len({chain.msa for chain in complex.chains}) == 1
    assert keys(complex) == [[-1, 2, -1], [-1, 2, -1]]
    first = read_chain_msas(complex, MsaSettings())[0]
    assert first.deletions.tolist() == [[1, 2, 2]]


def test_a_complex_without_paired_rows(tmp_path: Path) -> None:
    complex = one(write(tmp_path / "x.a3m", UNPAIRED_ALONE))
    assert [chain.sequence for chain in complex.chains] == ["MKA", "GW"]
    msas = read_chain_msas(complex, MsaSettings(pairing="taxonomy"))
    assert [len(msa.keys) for msa in msas] == [2, 2]
    assert all((msa.keys == UNPAIRED).all() for msa in msas)


def test_copies_are_named_side_by_side(tmp_path: Path) -> None:
    complex = one(write(tmp_path / "x.a3m", PAIRED.replace("1,1", "2,3", 1)))
    assert "".join(chain.name for chain in complex.chains) == "ABCDE"
    assert [chain.sequence for chain in complex.chains] == ["MKA", "MKA", "GW", "GW", "GW"]
    homomer = one(write(tmp_path / "h.a3m", "#5\t3\n>101\nMKTAY\n>a\nMKT-Y\n"))
    assert [chain.sequence for chain in homomer.chains] == ["MKTAY"] * 3
    assert one(write(tmp_path / "m.a3m", "#5\t1\n" + PROTEIN)).num_residues == 5


def test_comments_marks_and_parts_of_one_query(tmp_path: Path) -> None:
    comment = "#1abc_A a name, not lengths\n" + PROTEIN
    assert one(write(tmp_path / "c.a3m", comment)).num_residues == 5
    parts = f"{PROTEIN}\0{PROTEIN}\0"
    assert one(write(tmp_path / "n.a3m", parts)).num_residues == 5
    marked = b"\xef\xbb\xbf" + PAIRED.replace("\n", "\r\n").encode()
    assert one(write(tmp_path / "b.a3m", marked)).num_residues == 5


def test_a_folder_of_alignments(tmp_path: Path) -> None:
    write(tmp_path / "b.a3m", PROTEIN)
    write(tmp_path / "a.A3M.gz", gzip.compress(PAIRED.encode()))
    write(tmp_path / "c.a3m", "no alignment\n")
    write(tmp_path / "._b.a3m", b"\x00\x05")
    write(tmp_path / "log.txt", "done\n")
    a, b, c = read(tmp_path)
    assert isinstance(a, Complex) and isinstance(b, Complex) and (a.name, b.name) == ("a", "b")
    assert isinstance(c, InvalidComplex) and c.reason.startswith(f"{tmp_path / 'c.a3m'}: line 1")


def test_alignments_beside_inputs_are_no_inputs(tmp_path: Path) -> None:
    write(tmp_path / "b.a3m", PROTEIN)
    write(tmp_path / "x.yaml", "sequences:\n- protein: {id: A, sequence: MKTAY, msa: b.a3m}\n")
    assert [record.name for record in read(tmp_path)] == ["x"]
    assert [record.name for record in read_input(tmp_path, format="a3m")] == ["b"]


def test_a_table_of_colabfold_names_alignments(tmp_path: Path) -> None:
    write(tmp_path / "x.a3m", PAIRED)
    write(tmp_path / "p.a3m", PROTEIN)
    write(tmp_path / "elsewhere.a3m", PROTEIN.replace("MKT", "GSH"))
    rows = ["x,GW:MKA:GW,x.a3m", "p,MKTAY,p.a3m", "q,MKTAY,", "r,MKTAY,x.csv", "s,M,../../s.a3m"]
    table = write(tmp_path / "t.csv", "id,sequence,a3mpath\n" + "\n".join(rows) + "\n")
    x, p, q, r, s = read_input(table, msas=tmp_path)
    assert isinstance(x, Complex) and isinstance(p, Complex) and isinstance(q, Complex)
    assert [chain.sequence for chain in x.chains] == ["GW", "GW", "MKA"]
    assert keys(x) == [[-1, 2, -1]] * 3
    assert [chain.msa for chain in p.chains] == [tmp_path / "p.a3m"] and not p.notes
    assert q.chains[0].msa is None
    assert isinstance(r, InvalidComplex) and "a3mpath: there is no file x.csv" in r.reason
    assert isinstance(s, InvalidComplex) and "a3mpath: there is no file ../../s.a3m" in s.reason
