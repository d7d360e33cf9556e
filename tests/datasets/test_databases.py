"""Tables of CORUM, Complex Portal and hu.MAP: complexes, notes, and reasons of invalid rows."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from foldcp.complex import Complex, InvalidComplex, Record
from foldcp.datasets.sequences import SequenceHit, Sequences
from tests.support.inputs import read_input

SHARED = Path(__file__).parents[3] / "shared" / "data"
HUMAN = SHARED / "inputs" / "human_proteins_uniprot.fasta.gz"
needs_data = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the folder of real databases is not here"
)

SEQUENCES = {
    "P00001": "MKTAY",
    "P00002": "GSHW",
    "P00002-2": "GSH",
    "P00003": "MKTAY",
    "P00004": "MK7",
    "P00005": "CCW",
}
HEADER = "ComplexID\tComplexName\tOrganism\tsubunits(UniProt IDs)\tstoichiometry"


def _read(
    folder: Path,
    table: str,
    msas: Path | None = None,
    name: str = "db.tsv",
    proteins_only: bool = True,
    **options: Any,
) -> list[Record]:
    (folder / "s.fasta").write_text(
        "".join(f">{name}\n{letters}\n" for name, letters in SEQUENCES.items())
    )
    (folder / name).write_text(table)
    path = folder / name
    found = read_input(path, folder / "s.fasta", msas, proteins_only=proteins_only, **options)
    return list(found)


def _row(folder: Path, subunits: str, counts: str = "", **options: Any) -> Record:
    [record] = _read(folder, f"{HEADER}\n1\tname\tHuman\t{subunits}\t{counts}\n", **options)
    return record


def _chains(record: Record) -> list[tuple[str, str]]:
    assert isinstance(record, Complex), record
    return [(chain.name, chain.accession) for chain in record.chains]


@pytest.mark.parametrize(
    ("subunits", "expected"),
    [
        ("P00001;P00002", ["P00001", "P00002"]),
        (" P00001 ; P00002;", ["P00001", "P00002"]),
        ("P00001,P00002", ["P00001", "P00002"]),
        ("P00001 P00002", ["P00001", "P00002"]),
        ("P00001;None;P00002;;", ["P00001", "P00002"]),
        ("( P00001);P00002", ["P00001", "P00002"]),
        ("p00001;P00002-", ["P00001", "P00002"]),
        ("P00001;P00002;P00001", ["P00001", "P00001", "P00002"]),  # copies side by side
        (
            "P00001;P00002;P00003",
            ["P00001", "P00003", "P00002"],
        ),  # one sequence under two accessions
        ("P00002-2;P00002-7", ["P00002-2", "P00002"]),
        ("P00002:2-3", ["P00002:2-3"]),
    ],
)
def test_corum_lists_of_subunits(tmp_path: Path, subunits: str, expected: list[str]) -> None:
    names = ["A", "B", "C"][: len(expected)]
    assert _chains(_row(tmp_path, subunits)) == list(zip(names, expected, strict=True))


@pytest.mark.parametrize(
    ("subunits", "reason"),
    [
        ("", "no subunits are listed"),
        ("None", "no subunits are listed"),
        (";;", "no subunits are listed"),
        (
            "P00001;Q99999;P00007-2;Q99999",
            "unknown accession: Q99999, P00007-2 not in s.fasta",
        ),
        ("P00001;P00004", "P00004: chain B: invalid letters '7' in the protein sequence"),
        (
            "P00001;(P00002,P00005)",
            "ambiguous subunits '(P00002,P00005)': list the ones present",
        ),
        ("P00001;(P00002;P00005)", "ambiguous subunits '(P00002': list the ones present"),
        ("P00001;P00002:3-9", "P00002:3-9: P00002 has residues 1 to 4 only"),
    ],
)
def test_corum_rows_that_are_invalid(tmp_path: Path, subunits: str, reason: str) -> None:
    record = _row(tmp_path, subunits)
    assert isinstance(record, InvalidComplex)
    assert record.reason.startswith(reason)
    assert (record.name, record.title, record.organism, record.source) == (
        "1",
        "name",
        "Human",
        "db.tsv",
    )


@pytest.mark.parametrize(
    ("subunits", "counts", "expected", "note"),
    [
        ("P00001;P00002", "2; 3", [2, 3], None),
        ("P00001", "1000", [1000], None),
        ("P00001;P00002;", "2;1;", [2, 1], None),
        ("P00001", "7.0", [7], None),
        ("P00001;P00002", ";", [1, 1], "unknown, one copy of each assumed"),
        ("P00001;P00002", "None", [1, 1], "unknown, one copy of each assumed"),
        ("P00001;P00002", ";3", [1, 3], "unknown for P00001, one copy assumed"),
        ("P00001;P00002", "2;?", [2, 1], "unknown for P00002, one copy assumed"),
        (
            "P00001;P00002",
            "2",
            [1, 1],
            "'2' unreadable for 2 subunits, one copy of each assumed",
        ),
        (
            "P00001;P00002",
            "2-4;1",
            [1, 1],
            "'2-4;1' unreadable for 2 subunits, one copy of each assumed",
        ),
        ("None;P00001;P00002", "5;2;3", [2, 3], None),
    ],
)
def test_corum_stoichiometry(
    tmp_path: Path, subunits: str, counts: str, expected: list[int], note: str | None
) -> None:
    record = _row(tmp_path, subunits, counts)
    assert list(Counter(accession for _, accession in _chains(record)).values()) == expected
    assert isinstance(record, Complex)
    notes = [found for found in record.notes if found.startswith("stoichiometry")]
    assert notes == ([] if note is None else [f"stoichiometry: {note}"])


def test_corum_count_of_more_digits_than_python_converts(tmp_path: Path) -> None:
    for subunits, counts in (
        ("P00001", "9" * 5_000),
        ("P00001;P00002", f"1;{'9' * 5_000}"),
    ):
        record = _row(tmp_path, subunits, counts)
        assert isinstance(record, InvalidComplex)
        assert record.reason.endswith("chains exceed the maximum of 100,000")
    record = _row(tmp_path, f"P00001:1-{'9' * 5_000}")
    assert isinstance(record, InvalidComplex)
    assert record.reason.startswith("unknown accession")


def test_find_cuts_no_range_out_of_a_range(tmp_path: Path) -> None:
    record = _row(tmp_path, "P00001" + ":1-2" * 5_000)
    assert isinstance(record, InvalidComplex)
    assert record.reason.startswith("unknown accession: P00001:1-2:1-2")


def test_read_makes_any_exception_of_a_row_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = Sequences.find

    def find_or_fail(sequences: Sequences, accession: str) -> SequenceHit | None:
        if accession == "P00002":
            raise OverflowError("too large")
        return find(sequences, accession)

    monkeypatch.setattr(Sequences, "find", find_or_fail)
    table = f"{HEADER}\n1\ta\tHuman\tP00001\t\n2\tb\tHuman\tP00002\t\n3\tc\tHuman\tP00003\t\n"
    first, second, third = _read(tmp_path, table)
    assert isinstance(first, Complex)
    assert isinstance(second, InvalidComplex)
    assert second.reason == "row 2: a number out of range (too large)"
    assert isinstance(third, Complex)
    assert [first.index, second.index, third.index] == [0, 1, 2]


def test_complex_portal_notes_every_interchangeable_choice(tmp_path: Path) -> None:
    expanded = "[P00001,P00002](1)|[P00005,P00002](1)"
    [record] = _read(tmp_path, f"{COMPLEXTAB}CPX-1\t-\t9606\t{expanded}\ts\t{expanded}\n")
    assert isinstance(record, Complex)
    assert [note for note in record.notes if note.startswith("subunits")] == [
        "subunits: P00001 taken from [P00001,P00002]",
        "subunits: P00005 taken from [P00005,P00002]",
    ]
    bracketed = _row(tmp_path, "(P00001);P00002")
    assert isinstance(bracketed, Complex)
    assert "subunits: P00001 in parentheses, assumed present" in bracketed.notes


def test_read_table_takes_the_most_frequent_separator_of_the_header(tmp_path: Path) -> None:
    header = "complex_id;complex_name, long;organism;subunits_uniprot_id\n"
    table = header + '11;a, b;Human;"P00001;P00002"\n'
    [record] = _read(tmp_path, table)
    assert len(_chains(record)) == 2


def test_read_table_names_the_line_of_unmatched_quotes(tmp_path: Path) -> None:
    table = f'{HEADER}\n1\t"two\nlines"\tHuman\tP00001\t1\n2\t"Ends here\tHuman\tP00002\t1\n'
    with pytest.raises(ValueError, match=r"db\.tsv: line 4: the quotes in the table do not match"):
        _read(tmp_path, table)


def test_read_table_with_a_cell_that_begins_with_a_quoted_word(tmp_path: Path) -> None:
    table = f'{HEADER}\n1\t"two\nlines"\tHuman\tP00001\t1\n2\t"Ends" here\tHuman\tP00002\t1\n'
    first, second = _read(tmp_path, table)
    assert (first.title, second.title) == ("two\nlines", "Ends here")
    assert isinstance(first, Complex) and isinstance(second, Complex)


def test_corum_refuses_too_many_copies(tmp_path: Path) -> None:
    record = _row(tmp_path, "P00001", "1001")
    assert isinstance(record, InvalidComplex)
    assert record.reason == "1001 copies of P00001 exceed the maximum of 1000"


def test_corum_notes_say_what_was_assumed(tmp_path: Path) -> None:
    record = _row(tmp_path, "P00001;P00002-7;None")
    assert isinstance(record, Complex)
    assert record.notes == (
        "stoichiometry: unknown, one copy of each assumed",
        "subunits: 1 of 3 without an accession left out",
        "sequence: full-length P00002 used for P00002-7",
        "msa: no alignment for P00001, P00002",
    )


def test_corum_keeps_the_notes_of_invalid_rows(tmp_path: Path) -> None:
    record = _row(tmp_path, "P00001;P99999;None")
    assert isinstance(record, InvalidComplex)
    assert record.notes == (
        "stoichiometry: unknown, one copy of each assumed",
        "subunits: 1 of 3 without an accession left out",
    )


def test_find_gives_the_msas_of_a_database(tmp_path: Path) -> None:
    folder = tmp_path / "msas"
    folder.mkdir()
    (folder / "P00002.a3m").touch()
    [record] = _read(tmp_path, f"{HEADER}\n1\tn\tHuman\tP00001;P00002-9;P00002-2\t\n", folder)
    assert isinstance(record, Complex)
    assert [chain.msa for chain in record.chains] == [None, folder / "P00002.a3m", None]
    assert "msa: no alignment for P00001, P00002-2" in record.notes


def test_read_table_with_quotes_and_line_ends_in_fields(tmp_path: Path) -> None:
    table = (
        "subunits_stoechiometrie\tcomment_complex\torganism\tsubunits_uniprot_id\tcomplex_name\tcomplex_id\n"
        '2;\t"two lines:\nand a ""quote"""\tHuman\tP00001;P00002\t"a\tb"\t9\n'
        "\n;\tnone\tMouse\tP00005;P00002\tc\t10\n"
    )
    first, second = _read(tmp_path, table)
    assert (first.name, first.title, first.organism, len(_chains(first))) == (
        "9",
        "a\tb",
        "Human",
        3,
    )
    assert (second.name, second.title, second.organism) == ("10", "c", "Mouse")


def test_read_table_with_quotes_that_quote_nothing(tmp_path: Path) -> None:
    first, second = _read(
        tmp_path, f'{HEADER}\n1\t"A" box\tHuman\tP00001\t\n2\t"5\'-3\tHuman\tP00002\t\n'
    )
    assert (first.title, second.title) == ('"A" box', "\"5'-3")
    with pytest.raises(ValueError, match="the quotes in the table do not match"):
        _read(tmp_path, f'{HEADER}\n1\t"A\tHuman\tP00001\n2\tB\tHuman\tP00002\t\n')


def test_corum_row_that_is_truncated(tmp_path: Path) -> None:
    whole, cut = _read(tmp_path, f"{HEADER}\n1\ta\tHuman\tP00001\t1\n2\tb\tHuman\tP000")
    assert isinstance(whole, Complex)
    assert isinstance(cut, InvalidComplex)
    assert cut.reason == "row 2 has 4 columns, the table 5"


COMPLEXTAB = (
    "#Complex ac\tRecommended name\tTaxonomy identifier\tIdentifiers (and stoichiometry) of "
    "molecules in complex\t"
    "Source\tExpanded participant list\n"
)


@pytest.mark.parametrize(
    ("members", "expanded", "expected", "notes"),
    [
        (
            "P00001(2)|P00002(1)",
            "P00001(2) | P00002(1)",
            ["P00001", "P00001", "P00002"],
            [],
        ),
        (
            "CPX-9(1)|P00005(1)",
            "P00001(2)|P00005(1)",
            ["P00001", "P00001", "P00005"],
            [],
        ),
        (
            "P00001(0)|URS0001_9606(1) | CHEBI:29035(2)",
            "P00001(0)",
            ["P00001"],
            [
                "stoichiometry: unknown for P00001, one copy assumed",
                "subunits: URS0001_9606, CHEBI:29035 left out, as only proteins are folded",
            ],
        ),
        (
            "[P00005,P00001](2)",
            "[ P00005 ,P00001](2)",
            ["P00005"] * 2,
            ["subunits: P00005 taken from [ P00005 ,P00001]"],
        ),
        (
            "P00002-PRO_0000000092(1)",
            "-",
            ["P00002"],
            ["sequence: full-length P00002 used for P00002-PRO_0000000092"],
        ),
    ],
)
def test_complex_portal_tables(
    tmp_path: Path,
    members: str,
    expanded: str,
    expected: list[str],
    notes: list[str],
) -> None:
    [record] = _read(
        tmp_path,
        f'{COMPLEXTAB}CPX-1\t-\t9606\t{members}\tpsi-mi:"MI:0469"(IntAct)\t{expanded}\n',
    )
    assert isinstance(record, Complex)
    assert (record.name, record.title, record.organism) == ("CPX-1", "", "9606")
    assert [accession for _, accession in _chains(record)] == expected
    assert [note for note in record.notes if not note.startswith("msa")] == notes


def test_complex_portal_refuses_rows_without_proteins(tmp_path: Path) -> None:
    [record] = _read(tmp_path, f"{COMPLEXTAB}CPX-1\tn\t9606\tURS0001_9606(1)\ts\t-\n")
    assert isinstance(record, InvalidComplex)
    assert record.reason == "no proteins are listed, only URS0001_9606"


def test_humap_tables(tmp_path: Path) -> None:
    table = (
        "HuMAP3_ID,ComplexConfidence,Uniprot_ACCs,genenames\nhuMAP3_1.1,4,P00001 P00005,GENA GENB\n"
    )
    [record] = _read(tmp_path, table, name="h.csv")
    assert isinstance(record, Complex)
    assert (record.name, record.title, record.organism) == (
        "huMAP3_1.1",
        "GENA GENB",
        "Human",
    )
    assert "confidence: 4 (hu.MAP, 1 best to 6)" in record.notes
    assert _chains(record) == [("A", "P00001"), ("B", "P00005")]


@needs_data
def test_corum_4_tables() -> None:
    start = time.process_time()
    records = list(read_input(SHARED / "corum" / "corum_4.1_core.tsv.gz", HUMAN))
    assert time.process_time() - start < 4
    human = [record for record in records if record.organism == "Human"]
    built = [record for record in human if isinstance(record, Complex)]
    failed = [record for record in human if isinstance(record, InvalidComplex)]
    assert (len(records), len(human), len(built)) == (5280, 3694, 3568)
    assert all(record.reason.startswith("unknown accession: ") for record in failed)
    assert (
        len(
            {
                name
                for record in failed
                for name in record.reason.split(": ")[1].split(" not ")[0].split(", ")
            }
        )
        == 52
    )
    largest = max(built, key=lambda record: record.num_residues)
    assert (largest.title, largest.num_residues) == ("C complex spliceosome", 49_055)
    assert (len(largest.chains), largest.chains[-1].name) == (80, "CB")
    first = records[0]
    assert (first.name, first.title, first.organism) == (
        "1",
        "BCL6-HDAC4 complex",
        "Human",
    )
    assert _chains(first) == [("A", "P41182"), ("B", "P56524")]


@needs_data
def test_corum_3_with_another_column_order() -> None:
    records = {
        record.name: record
        for record in read_input(SHARED / "corum" / "corum_3.0_allComplexes.txt.gz", HUMAN)
    }
    assert len(records) == 4274
    assert sum(record.organism == "Human" for record in records.values()) == 2916
    assert _chains(records["1"]) == [("A", "P41182"), ("B", "P56524")]
    nothing = records["7456"]
    assert isinstance(nothing, InvalidComplex)
    assert nothing.reason == "no subunits are listed"


@needs_data
def test_corum_5_and_the_other_releases() -> None:
    records = {
        record.name: record
        for record in read_input(SHARED / "corum" / "corum_v5_fixture.txt", HUMAN)
    }
    assert list(records) == ["1", "4", "10", "29", "30"]
    assert _chains(records["29"]) == [(name, "P61289") for name in "ABCDEFG"]
    assert len(_chains(records["10"])) == 5
    portal = {
        record.name: record
        for record in read_input(
            SHARED / "inputs" / "complextab_9606_fixture.tsv", HUMAN, proteins_only=True
        )
    }
    assert len(portal) == 8
    assert [accession for _, accession in _chains(portal["CPX-37"])] == [
        "P05109",
        "P05109",
        "P06702",
        "P06702",
    ]
    humap = list(read_input(SHARED / "inputs" / "humap3_first_400_lines.csv", HUMAN))
    assert len(humap) == 399
    assert _chains(humap[0]) == [("A", "Q9UGQ2"), ("B", "P20963"), ("C", "Q9NWV4")]
