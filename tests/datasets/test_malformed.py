"""Malformed files: what is said of each, as docs/inputs.md tells it, and of other content than
`--format` says.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from foldcp.complex import Complex, InvalidComplex
from foldcp.datasets.format import ReadOptions
from foldcp.datasets.reader import FORMATS, read
from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.tasks import make_task_list

PAGE = Path(__file__).parents[2] / "docs" / "inputs.md"
ROW = re.compile(r"^\| (.+?) \| (.+?) \|$", re.MULTILINE)
ALIGNED = "sequences:\n- protein: {id: A, sequence: MKT, msa: %s}\n"
YAML = ALIGNED % "empty"

# By the first cell of a row of the page: the name of a file and its content.
FILES: dict[str, tuple[str, str | bytes]] = {
    "FASTA: text before the first `>`": ("x.fasta", "MKTAYIAK\n>a\nMKT\n"),
    "FASTA: a record without letters": ("x.fasta", ">a\n>b\nMKT\n"),
    "FASTA: `MKT::GSH`, a `:` at an end": ("x.fasta", ">a\nMKT::GSH\n>b\nMKT:\n"),
    "FASTA: `-`, `.`, `/` or digits": ("x.fasta", ">a\nMK-1/T\n"),
    "FASTA: `*` other than at the end": ("x.fasta", ">a\nMK*T\n"),
    "FASTA: 20 letters or more, all A, C, G, T": ("x.fasta", ">a\nACGTACGTACGTACGTACGT\n"),
    "FASTA: two records of one header": ("x.fasta", ">a b\nMKT\n>a b\nGSH\n"),
    "FASTA: 100,001 chains": ("x.fasta", ">a\n" + "M:" * 100_000 + "M\n"),
    "FASTA: chains as records": ("x.fasta", ">a\nMKT\n>b\nGSH\n"),
    "Boltz FASTA: a header of another form": ("x.fasta", ">A|protein|empty\nMKT\n>B\nGSH\n"),
    "Boltz FASTA: an unknown kind": ("x.fasta", ">A|protein|empty\nMKT\n>C|peptide\nGSH\n"),
    "Chai-lab FASTA: a glycan": ("x.fasta", ">protein|name=A\nMKT\n>glycan|name=G\nNAG\n"),
    "ColabFold CSV: no column `sequence`": ("x.csv", "id,seq\nx,MKT\n"),
    "ColabFold CSV: a column twice": ("x.csv", "id,sequence,Sequence\nx,MKT,GSH\n"),
    "ColabFold CSV: no rows": ("x.csv", "id,sequence\n"),
    "ColabFold CSV: a row of another width": ("x.csv", "id,sequence\nx,MKT,GSH\ny,MKT\n"),
    "ColabFold CSV: no sequence": ("x.csv", "id,sequence\nx,\n"),
    "ColabFold CSV: `rna\\|ACGU`": ("x.csv", "id,sequence\nx,MKT:rna|ACGU\n"),
    "ColabFold CSV: an `a3mpath` that is not there": (
        "x.csv",
        "id,sequence,a3mpath\nx,MKT,no.a3m\n",
    ),
    "ColabFold CSV: `templatepath`": ("x.csv", "id,sequence,templatepath\nx,MKT,t\n"),
    "ColabFold CSV: two rows of one id": ("x.csv", "id,sequence\nx,MKT\nx,GSH\n"),
    "ColabFold CSV: an alignment (`key,sequence`)": ("x.csv", "key,sequence\n-1,MKT\n"),
    "a3m: text before the first `>`": ("x.a3m", "MKT\n>q\nMKT\n"),
    "a3m: no sequence": ("x.a3m", ">q\n"),
    "a3m: a query without letters": ("x.a3m", ">q\n>x\nMKT\n"),
    "a3m: a query with `-` or lower case": ("x.a3m", ">q\nMkK-T\n"),
    "a3m: secondary structure before the query": ("x.a3m", ">ss_pred\nHHC\n>q\nMKT\n"),
    "a3m: `#20,9` alone": ("x.a3m", "#20,9\n>101\t102\nMKTGS\n"),
    "a3m: lengths and copies of other numbers": ("x.a3m", "#3,2\t1\n>101\t102\nMKTGS\n"),
    "a3m: a length or a copy number of 0": ("x.a3m", "#3,2\t1,0\n>101\t102\nMKTGS\n"),
    "a3m: other columns than the first line says": ("x.a3m", "#3,2\t1,1\n>101\t102\nMKTG\n"),
    "a3m: a chain without a row": ("x.a3m", "#3,2\t1,1\n>101\nMKT--\n"),
    "a3m: a query of another length than the first line says": ("x.a3m", "#4\t2\n>101\nMKT\n"),
    "a3m: several queries, parted by NUL": ("x.a3m", ">101\nMKT\n\0>102\nGSHM\n\0"),
    "a3m: a complex in a file of another name": ("x.txt", "#3,2\t1,1\n>101\t102\nMKTGS\n"),
    "a3m: a row with too few columns": ("x.a3m", ">q\nMKT\n>x\nMK\n"),
    "a3m: a row with `*`": ("x.a3m", ">q\nMKT\n>x\nMK*\n"),
    "Boltz YAML: an unknown key": ("x.yaml", YAML.replace("msa:", "msas:")),
    "Boltz YAML: a missing key": ("x.yaml", YAML.replace(", sequence: MKT", "")),
    "Boltz YAML: a key twice": ("x.yaml", YAML + "sequences: []\n"),
    "Boltz YAML: a name twice": ("x.yaml", YAML.replace("id: A", "id: [A, A]")),
    "Boltz YAML: no chains": ("x.yaml", "sequences: []\n"),
    "Boltz YAML: an alignment that is not there": ("x.yaml", ALIGNED % "no.a3m"),
    "Boltz YAML: an alignment of another form": ("x.yaml", ALIGNED % "a.sto"),
    "Boltz YAML: copies with other alignments": (
        "x.yaml",
        ALIGNED % "b.a3m" + YAML.partition("\n")[2].replace("id: A", "id: B"),
    ),
    "Boltz YAML: version 2": ("x.yaml", "version: 2\n" + YAML),
    "Boltz YAML: affinity": ("x.yaml", YAML + "properties:\n- affinity: {binder: A}\n"),
    "any: Zstandard": ("x.a3m.zst", b"\x28\xb5\x2f\xfd\x24\x00"),
}
ROWS = dict(ROW.findall(PAGE.read_text(encoding="utf-8")))


def said(path: Path) -> str:
    """The error of reading a file, the reasons of its records, or else their notes."""
    try:
        found = make_task_list(
            read(path), load(overrides=["msa.missing=single-sequence"]), "weights"
        )
    except ValueError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
        return f"error: {error}"
    if found.invalid:
        return " ".join(f"`invalid`: {record.reason}" for record in found.invalid)
    return " ".join(note for task in found.tasks for note in task.complex.notes)


@pytest.mark.parametrize("row", FILES, ids=str)
def test_what_the_page_says_of_a_malformed_file(tmp_path: Path, row: str) -> None:
    name, content = FILES[row]
    (tmp_path / "a.sto").touch()
    (tmp_path / "b.a3m").write_text(">q\nMKT\n")
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    kind, _, text = ROWS[row].partition(": ")
    message = said(path)
    kinds = {"error": "error", "note": "", "note and a line on stderr": ""}
    assert message.startswith(kinds.get(kind, "`invalid`")), message
    for piece in text.replace("\\|", "|").split("…"):
        assert piece.strip() in message, message


def test_the_page_has_no_other_rows_of_these_formats() -> None:
    formats = {row.partition(":")[0] for row in FILES} - {"any"}
    documented = {
        row
        for row, text in ROWS.items()
        if row.partition(":")[0] in formats and re.search("error: |invalid`: |note(: | and)", text)
    }
    assert documented | {"any: Zstandard"} == FILES.keys()


PROTEIN = {"sequence": "MKT", "count": 1}
AF3 = {"id": "A", "sequence": "MKT", "unpairedMsa": "", "pairedMsa": ""}
QUERY = {"molecule_type": "protein", "chain_ids": ["A"], "sequence": "MKT", "use_msas": False}
HUMAP = "Confidence,Uniprot_ACCs,genenames\nh,1,P12345,x\n"
# A file of each format, by the format's name.
CONTENTS = {
    "a3m": ("a.a3m", "#3,2\t1,1\n>101\t102\nMKAGW\n"),
    "corum-json": (
        "c.json",
        '[{"complex_id": 1, "subunits": [{"swissprot": {"uniprot_id": "P12345"}}]}]',
    ),
    "alphafold3": (
        "3.json",
        json.dumps(
            {
                "name": "x",
                "modelSeeds": [1],
                "sequences": [{"protein": AF3}],
                "dialect": "alphafold3",
                "version": 1,
            }
        ),
    ),
    "openfold3": ("o.json", json.dumps({"queries": {"x": {"chains": [QUERY]}}})),
    "protenix": (
        "p.json",
        json.dumps([{"name": "x", "sequences": [{"proteinChain": {**PROTEIN, "id": ["A"]}}]}]),
    ),
    "alphafold-server": (
        "s.json",
        json.dumps([{"name": "x", "modelSeeds": [], "sequences": [{"proteinChain": PROTEIN}]}]),
    ),
    "boltz": ("b.yaml", YAML),
    "boltz-fasta": ("b.fasta", ">A|protein|empty\nMKT\n"),
    "chai": ("c.fasta", ">protein|name=A\nMKT\n"),
    "fasta": ("f.fasta", ">P12345 first\nMKT\n"),
    "corum": ("c.tsv", "ComplexID\tComplexName\tsubunits(UniProt IDs)\n7\tx\tP12345\n"),
    "complexportal": ("p.tsv", "#Complex ac\tExpanded participant list\nCPX-1\tP12345(1)\n"),
    "humap3": ("3.csv", "HuMAP3_ID,Complex" + HUMAP),
    "humap2": ("2.csv", "HuMAP2_ID," + HUMAP),
    "colabfold": ("c.csv", "id,sequence\nx,MKT\n"),
    "pairs": ("pairs.csv", "protein_a,protein_b\nP12345,P12345\n"),
    "alphapulldown": ("list.txt", "P12345,2;P12345,1-4\n"),
}
WRONG = {
    "words": ("w.txt", "some words here\nand more\n"),
    "numbers": ("n.txt", "1 2 3\n4 5 6\n"),
    "a structure": ("m.pdb", "ATOM      1  N   MET A   1\n"),
    "an empty list": ("e.json", "[]"),
    "an empty object": ("e.json", "{}"),
    "a number": ("n.json", "17"),
    "texts": ("t.json", '["a", "b"]'),
    "JSON that is cut off": ("c.json", '{"a": '),
    "jobs without sequences": ("j.json", '[{"name": "x"}]'),
    "queries of no form": ("q.json", '{"queries": {"x": 3}}'),
    "a list in YAML": ("l.yaml", "- 1\n- 2\n"),
}
# Formats that another one is a form of: a plain FASTA file may have any header, and a list of jobs
# of Protenix is one of the server if it has nothing of its own.
CONTAINS = {("fasta", "boltz-fasta"), ("fasta", "chai"), ("protenix", "alphafold-server")}


def test_every_format_has_a_content() -> None:
    assert CONTENTS.keys() == {known.name for known in FORMATS}


@pytest.mark.parametrize("content", [*CONTENTS, *WRONG])
@pytest.mark.parametrize("name", CONTENTS)
def test_format_on_its_own_and_on_other_content(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / "seq.fasta").write_text(">P12345\nMKTAYIAK\n")
    file, text = {**CONTENTS, **WRONG}[content]
    (tmp_path / file).write_text(text)
    options = ReadOptions(sequences=(tmp_path / "seq.fasta",), format=name)
    is_readable = name == content or (name, content) in CONTAINS
    try:
        records = list(read(tmp_path / file, options))
    except ValueError as error:
        message = str(error)
        assert not is_readable and message.startswith(f"{tmp_path / file}: ")
        assert "\n" not in message and message.count(str(tmp_path)) == 1
        if content in CONTENTS:
            assert message.endswith(f"read as --format {name}, but it looks like {content}")
        return
    kind = Complex if is_readable else InvalidComplex
    assert records and all(isinstance(record, kind) for record in records)


def test_an_unknown_format_is_told_with_all_names_and_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id,sequence\nx,MKT\n")
    with pytest.raises(ValueError, match="unknown format 'af3'; known: a3m") as caught:
        read(tmp_path / "x.csv", ReadOptions(format="af3"))
    for known in FORMATS:
        assert f"{known.name} ({known.description})" in str(caught.value)


def test_a_folder_of_one_format(tmp_path: Path) -> None:
    for name in ("boltz", "fasta", "a3m"):
        (tmp_path / CONTENTS[name][0]).write_text(CONTENTS[name][1])

    def names(**options: str) -> list[str]:
        return [record.name for record in read(tmp_path, ReadOptions(**options))]

    assert names() == ["b", "P12345"]
    assert names(format="a3m") == ["a"]
    assert names(format="boltz") == ["b"]
    with pytest.raises(ValueError, match="is a folder; --format corum reads a file"):
        names(format="corum")
    with pytest.raises(ValueError, match=r"the folder has no file that ends in \.json"):
        names(format="protenix")
