"""Boltz's YAML and FASTA, key by key; every mistake names the file, the place and the value."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from foldcp.complex import Bond, Complex, Contact, Pocket, Template
from tests.support.inputs import read_input

SHARED = Path(__file__).parents[3] / "shared"

ALL = """
version: 1
sequences:
  - protein: {id: A, sequence: MKTS, msa: a.a3m}
  - protein:
      id: B
      sequence: >
        gctacg
        KWC
      msa: empty
      cyclic: True
      modifications: [{position: 4, ccd: tpo}, {position: 2, ccd: MSE}]
  - ligand: {id: [L1, NO], ccd: mg}
  - protein: {id: [C, D], sequence: MKTS, msa: ./a.a3m}
  - rna: {id: 1, sequence: GAUNC, msa: empty}
  - ligand: {id: L3, ccd: MG}
  - ligand: {id: G, ccd: [NAG, 017]}
  - ligand: {id: S, smiles: "CC(=O)Oc1ccccc1*"}
  - dna: {id: E, sequence: GATNC, msa: null, modifications: }
constraints:
  - pocket: {binder: L3, contacts: [[D, 3], [L1, MG]], max_distance: 7.5, force: true}
  - contact: {token1: [A, 4], token2: ["1", 2]}
  - bond: {atom1: [G, 1, O4], atom2: [G, 2, C1]}
templates:
  - cif: t.cif
  - pdb: t.pdb
    chain_id: [A, B]
    template_id: [X, Y]
    force: yes
    threshold: 2
"""


def _write(folder: Path, text: str, name: str = "job.yaml") -> Path:
    for file in ("a.a3m", "t.cif", "t.pdb"):
        (folder / file).touch()
    (folder / name).write_text(text)
    return folder / name


def _read(path: Path, msas: Path | None = None) -> Complex:
    [record] = read_input(path, msas=msas)
    assert isinstance(record, Complex)
    return record


def _error(path: Path, msas: Path | None = None) -> str:
    """The one line of the error without the file's name, which it has to start with."""
    with pytest.raises(ValueError) as caught:
        read_input(path, msas=msas)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_boltz_yaml_with_every_key(tmp_path: Path) -> None:
    job = _read(_write(tmp_path, ALL.replace("./a.a3m", "a.a3m")))
    # As boltz 2.2.1 orders them: copies of one molecule follow each other.
    assert [chain.name for chain in job.chains] == [
        "A",
        "C",
        "D",
        "B",
        "L1",
        "NO",
        "L3",
        "1",
        "G",
        "S",
        "E",
    ]
    assert (job.name, job.source) == ("job", "job.yaml")
    chains = {chain.name: chain for chain in job.chains}
    assert [chain.kind for chain in job.chains] == ["protein"] * 4 + ["ligand"] * 3 + [
        "rna",
        "ligand",
        "ligand",
        "dna",
    ]
    assert chains["B"].sequence == "GCTACGKWC"
    assert chains["B"].modifications == ((2, "MSE"), (4, "TPO"))
    assert [name for name in chains if chains[name].cyclic] == ["B"]
    assert (chains["NO"].ccd, chains["G"].ccd) == (("MG",), ("NAG", "017"))
    assert chains["S"].smiles == "CC(=O)Oc1ccccc1*"
    assert [name for name in chains if chains[name].msa] == ["A", "C", "D"]
    assert chains["C"].msa == (tmp_path / "a.a3m").resolve()
    assert job.notes == ("msa: no alignment for chain B",)
    assert job.pockets == (Pocket("L3", (("D", 3), ("L1", "MG")), 7.5, True),)
    assert job.contacts == (Contact(("A", 4), ("1", 2), 6.0, False),)
    assert job.bonds == (Bond(("G", 1, "O4"), ("G", 2, "C1")),)
    assert job.templates == (
        Template((tmp_path / "t.cif").resolve()),
        Template((tmp_path / "t.pdb").resolve(), ("A", "B"), ("X", "Y"), True, 2.0),
    )


PROTEIN = "- protein: {id: A, sequence: MKTS, msa: empty}"
LIGAND = "- ligand: {id: L, ccd: ATP}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sequences: []", "complex job: it has no chains"),
        ("version: 1", "the file: the key 'sequences' is missing"),
        ("version: 2\nsequences: []", "unsupported version '2'; expected 1"),
        (f"sequences:\n{PROTEIN}\nbonds: []", "the file: unknown key 'bonds'"),
        (
            f"sequences:\n{PROTEIN}\nproperties:\n- affinity: {{binder: L}}",
            "properties: affinity is not supported yet",
        ),
        ("sequences: MKTS", "sequences: expected a list, got 'MKTS'"),
        (f"sequences:\n{PROTEIN}\n{PROTEIN}", "complex job: two chains are named 'A'"),
    ],
)
def test_boltz_yaml_mistakes_at_the_top(tmp_path: Path, text: str, expected: str) -> None:
    assert _error(_write(tmp_path, text)).startswith(expected)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("peptide: {id: A}", "ENTRY: unknown key 'peptide'; the known keys are protein, dna"),
        ("A", "ENTRY: expected one of the keys protein, dna, rna, ligand, got 'A'"),
        (
            "protein: {id: [A, A], sequence: MK, msa: empty}",
            "complex job: two chains are named 'A'",
        ),
        (
            "protein: {id: A, id: B, sequence: MK}",
            "not valid YAML: the key 'id' occurs twice (line 2, column 20)",
        ),
        (
            "protein: {id: [], sequence: MK, msa: empty}",
            "ENTRY (protein), id: the list is empty",
        ),
        (
            "protein: {id: A, sequence: M1K, msa: empty}",
            "chain A: invalid letters '1' in the protein sequence",
        ),
        (
            "protein: {id: A, sequence: , msa: empty}",
            "ENTRY (protein), sequence: expected a string",
        ),
        (
            "protein: {id: A, sequence: [M, K]}",
            "ENTRY (protein), sequence: expected a string, got a",
        ),
        ("rna: {id: A, sequence: GAT}", "chain A: invalid letters 'T' in the rna sequence"),
        (
            "rna: {id: A, sequence: GAU, msa: a.a3m}",
            "ENTRY (rna), msa: only proteins have",
        ),
        (
            "protein: {id: A, sequence: MK, mas: empty}",
            "ENTRY (protein): unknown key 'mas'",
        ),
        (
            "protein: {id: A, sequence: MK, msa: no.a3m}",
            "chain A, msa: there is no file no.a3m, neither in",
        ),
        (
            "protein: {id: A, sequence: MK, msa: /no.a3m}",
            "chain A, msa: there is no file /no.a3m",
        ),
        (
            "protein: {id: A, sequence: MK, msa: t.cif}",
            "chain A, msa: 't.cif' does not end in .csv, .a3m",
        ),
        (
            "protein: {id: A, sequence: MK, msa: empty}\n- protein: {id: B, sequence: "
            "MK, msa: a.a3m}",
            "chain B: copies of one protein have different alignments ('a.a3m')",
        ),
        (
            "protein: {id: A, sequence: MK, cyclic: 2}",
            "ENTRY (protein), cyclic: expected true",
        ),
        (
            "protein: {id: A, sequence: MK, modifications: [{position: 3, ccd: SEP}]}",
            "chain A: modification SEP at position 3, but the chain has 2 residues",
        ),
        (
            "protein: {id: A, sequence: MK, modifications: [{position: 0, ccd: SEP}]}",
            "ENTRY (protein), modifications, position: expected a positive integer, got '0'",
        ),
        (
            "dna: {id: A, sequence: GA, modifications: [{position: 1, ccd: X}, {position: "
            "1, ccd: Y}]}",
            "ENTRY (dna), modifications: two at position 1",
        ),
        ("ligand: {id: L}", "ligand L: give either CCD codes or a SMILES string"),
        (
            "ligand: {id: L, ccd: ATP, smiles: C}",
            "ligand L: give either CCD codes or a SMILES string",
        ),
        (
            "ligand: {id: L, ccd: ATP, cyclic: true}",
            "ENTRY (ligand): unknown key 'cyclic'",
        ),
    ],
)
def test_boltz_yaml_mistakes_in_sequences(tmp_path: Path, item: str, expected: str) -> None:
    """In `expected`, ENTRY is where the item is."""
    assert _error(_write(tmp_path, f"sequences:\n- {item}\n")).startswith(
        expected.replace("ENTRY", "sequences, entry 1")
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("constraints: [{distance: {}}]", "ENTRY: unknown key 'distance'"),
        (
            "constraints: [{bond: {atom1: [A, 1, CA]}}]",
            "ENTRY (bond): the key 'atom2' is missing",
        ),
        (
            "constraints: [{bond: {atom1: [A, 1], atom2: [L, 1, C1]}}]",
            "ENTRY (bond): expected an atom as [chain",
        ),
        (
            "constraints: [{bond: {atom1: [A, 5, CA], atom2: [L, 1, C1]}}]",
            "ENTRY (bond): chain A has no residue 5",
        ),
        (
            "constraints: [{bond: {atom1: [A, 1, CA], atom2: [L, 2, C1]}}]",
            "ENTRY (bond): chain L has no residue 2",
        ),
        (
            "constraints: [{pocket: {binder: Z, contacts: [[A, 1]]}}]",
            "ENTRY (pocket): unknown chain 'Z'",
        ),
        (
            "constraints: [{pocket: {binder: L, contacts: []}}]",
            "ENTRY (pocket): contacts is empty",
        ),
        (
            "constraints: [{pocket: {binder: L, contacts: [[A, CA]]}}]",
            "ENTRY (pocket): expected a positive integer",
        ),
        (
            "constraints: [{pocket: {binder: L, contacts: [[A, 1]], max_distance: -4}}]",
            "ENTRY (pocket), max_distance: expected a distance in Å, got '-4'",
        ),
        (
            "constraints: [{contact: {token1: [A, 1], token2: [L, PG], max_distance: 0}}]",
            "ENTRY (contact), max_distance: expected a distance in Å, got '0'",
        ),
        (
            "constraints: [{contact: {token1: [A, 1], token2: [L, PG], max_distance: inf}}]",
            "ENTRY (contact), max_distance: expected a distance in Å, got 'inf'",
        ),
        (
            "constraints: [{contact: {token1: [A, 1], token2: [A, 1, CA]}}]",
            "ENTRY (contact): expected a token as [chain, residue]",
        ),
        (
            "constraints: [{contact: {token1: [A, 1], token2: [L, PG], max: 3}}]",
            "ENTRY (contact): unknown key 'max'",
        ),
        (
            "templates: [{chain_id: A}]",
            "templates, entry 1: give a file, either cif or pdb",
        ),
        (
            "templates: [{cif: t.cif, pdb: t.pdb}]",
            "templates, entry 1: give a file, either cif or pdb",
        ),
        (
            "templates: [{cif: no.cif}]",
            "templates, entry 1, cif: there is no file no.cif",
        ),
        (
            "templates: [{cif: t.cif, chain_id: L}]",
            "templates, entry 1: only proteins have templates, but chain L",
        ),
        (
            "templates: [{cif: t.cif, chain_id: A, template_id: [X, Y]}]",
            "templates, entry 1: 1 in chain_id, but 2 in",
        ),
        (
            "templates: [{cif: t.cif, force: true}]",
            "templates, entry 1: force: true and threshold (Å) must be given together",
        ),
        (
            "templates: [{cif: t.cif, threshold: 2}]",
            "templates, entry 1: force: true and threshold (Å) must be given together",
        ),
    ],
)
def test_boltz_yaml_mistakes_in_constraints_and_templates(
    tmp_path: Path, text: str, expected: str
) -> None:
    """In `expected`, ENTRY is the first constraint."""
    message = _error(_write(tmp_path, f"sequences:\n{PROTEIN}\n{LIGAND}\n{text}"))
    assert message.startswith(expected.replace("ENTRY", "constraints, entry 1"))


def test_existing_file_searches_the_folder_then_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "job" / "x.yaml"
    path.write_text("sequences:\n- protein: {id: A, sequence: MKT, msa: m.csv}\n")
    (tmp_path / "here" / "m.csv").touch()
    assert _read(path).chains[0].msa == (tmp_path / "here" / "m.csv").resolve()
    (tmp_path / "job" / "m.csv").touch()
    assert _read(path).chains[0].msa == (tmp_path / "job" / "m.csv").resolve()
    monkeypatch.chdir(tmp_path / "job")
    assert _read(Path("x.yaml")).chains[0].msa == (tmp_path / "job" / "m.csv").resolve()
    assert (
        _error(_write(tmp_path, path.read_text().replace("m.csv", "/no.csv")))
        == "chain A, msa: there is no file /no.csv"
    )
    message = _error(_write(Path("."), path.read_text().replace("m.csv", "no.csv")))
    assert message.endswith(f"no.csv, neither in {tmp_path / 'job'} nor in {tmp_path / 'job'}")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "home.a3m").touch()
    home = _write(tmp_path / "here", path.read_text().replace("m.csv", "~/home.a3m"))
    found = (tmp_path / "home.a3m").resolve()
    assert _error(home) == (
        f"chain A, msa: '~/home.a3m' leads to {found}, outside of the input's folder; "
        "--allow-outside reads it"
    )
    [record] = read_input(home, allow_outside=True)
    assert isinstance(record, Complex)
    assert record.chains[0].msa == found


def test_read_templates_needs_a_protein(tmp_path: Path) -> None:
    path = _write(tmp_path, f"sequences:\n{LIGAND}\ntemplates: [{{cif: t.cif}}]\n")
    assert (
        _error(path) == "templates, entry 1: only proteins have templates, but the input has none"
    )


def test_read_constraints_of_small_distances_and_ligands_of_one_component(tmp_path: Path) -> None:
    near = "contact: {token1: [A, 1], token2: [L, PG], max_distance: 0.5}"
    bond = "bond: {atom1: [A, 4, OG], atom2: [L, 1, PG]}"
    job = _read(
        _write(
            tmp_path,
            f"sequences:\n{PROTEIN}\n{LIGAND}\nconstraints:\n- {near}\n- {bond}\n",
        )
    )
    assert job.contacts == (Contact(("A", 1), ("L", "PG"), 0.5),)
    assert job.bonds == (Bond(("A", 4, "OG"), ("L", 1, "PG")),)
    smiles = f"sequences:\n{PROTEIN}\n- ligand: {{id: L, smiles: CC}}\nconstraints:\n- {bond}\n"
    assert _read(_write(tmp_path, smiles)).bonds == job.bonds
    over = _write(tmp_path, smiles.replace("[L, 1, PG]", "[L, 2, PG]"))
    assert _error(over) == "constraints, entry 1 (bond): chain L has no residue 2 (of 1)"


def test_boltz_yaml_protein_without_msa_is_looked_up_and_may_lack_one(tmp_path: Path) -> None:
    text = (
        "sequences:\n- rna: {id: R, sequence: GAU}\n- protein: {id: [A, B], sequence: MKTS, "
        "msa: null}\n"
    )
    path = _write(tmp_path, text)
    folder = tmp_path / "msas"
    folder.mkdir()
    for msas in (None, folder):
        chains = _read(path, msas).chains[1:]
        assert [(chain.msa, chain.lacks_alignment) for chain in chains] == [(None, True)] * 2
    (folder / "job_1.csv").touch()
    assert [chain.msa for chain in _read(path, folder).chains] == [
        None,
        folder / "job_1.csv",
        folder / "job_1.csv",
    ]
    by_hash = folder / f"{sha256(b'MKTS').hexdigest()}.a3m.gz"
    by_hash.touch()
    assert _read(path, folder).chains[1].msa == by_hash


def test_boltz_fasta_is_one_complex(tmp_path: Path) -> None:
    text = (
        "> A|protein|a.a3m\nmkt\nS*\n>B|PROTEIN|empty some words\nGSH\n>D|dna\nGATC\n>R|rna|\nGAU\n"
        ">L|smiles\nCc1ccc\ncc1*\n>M|ccd\nMG\n>C|protein|a.a3m\nMKTS\n"
    )
    job = _read(_write(tmp_path, text, "job.fasta"))
    assert job.name == "job"
    assert [(c.name, c.kind, c.sequence or c.smiles or c.ccd) for c in job.chains] == [
        ("A", "protein", "MKTS"),
        ("C", "protein", "MKTS"),
        ("B", "protein", "GSH"),
        ("D", "dna", "GATC"),
        ("R", "rna", "GAU"),
        ("L", "ligand", "Cc1ccccc1*"),
        ("M", "ligand", ("MG",)),
    ]
    assert [chain.msa for chain in job.chains[:3]] == [(tmp_path / "a.a3m").resolve()] * 2 + [None]
    assert [chain.single_sequence for chain in job.chains[:3]] == [False, False, True]
    assert not any(chain.lacks_alignment for chain in job.chains)


def test_smiles_may_be_wrapped_in_fasta_and_end_in_a_line_break_in_yaml(
    tmp_path: Path,
) -> None:
    yaml = f"sequences:\n{PROTEIN}\n- ligand:\n    id: L\n    smiles: |\n      CCO\n"
    assert _read(_write(tmp_path, yaml)).chains[-1].smiles == "CCO"
    for smiles in ("CC\n      O", '"CC\\nO"', '"CCO ethanol"'):
        wrapped = f"sequences:\n{PROTEIN}\n- ligand:\n    id: L\n    smiles: {smiles}\n"
        assert "ligand L: white space in SMILES 'CC" in _error(_write(tmp_path, wrapped))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (">L|smiles\nCC\nO ethanol\n", "ligand L: white space in SMILES 'CCO ethanol'"),
        (">A|protein|empty\nM1K\n", "chain A: invalid letters '1' in the protein sequence"),
        (">A|protein|empty\nMK\n>A|rna\nGA\n", "complex job: two chains are named 'A'"),
        (
            ">A|protein|empty\nMK\n>P12345\nGA\n",
            "invalid header '>P12345'; expected '>CHAIN|KIND|MSA'",
        ),
        (
            ">A|protein|empty\nMK\n>B|protien|empty\nGA\n",
            "invalid kind 'protien' in the header '>B|protien|empty'; expected one of",
        ),
        (
            ">A|protein|empty\nMK\n>B|dna of ours\nGA\n",
            "invalid kind 'dna of ours' in the header '>B|dna of ours'; expected one of",
        ),
        (
            ">A|rna|a.a3m\nGAU\n",
            "sequences, entry 1 (rna), msa: only proteins have an alignment, got 'a.a3m'",
        ),
        (">A|protein|no.a3m\nMK\n", "chain A, msa: there is no file no.a3m"),
    ],
)
def test_boltz_fasta_mistakes(tmp_path: Path, text: str, expected: str) -> None:
    assert _error(_write(tmp_path, text, "job.fasta")).startswith(expected)


def test_boltz_yaml_msa_may_be_spelled_in_several_ways(tmp_path: Path) -> None:
    (tmp_path / "link.a3m").symlink_to("a.a3m")
    (tmp_path / "b.a3m").touch()
    spellings = [
        "a.a3m",
        "./a.a3m",
        str(tmp_path / "a.a3m"),
        f"../{tmp_path.name}/a.a3m",
        "link.a3m",
    ]
    entry = "- protein: {{id: {}, sequence: MKTS, msa: {}}}\n"
    text = "sequences:\n" + "".join(
        entry.format(name, msa) for name, msa in zip("ABCDE", spellings, strict=True)
    )
    assert {chain.msa for chain in _read(_write(tmp_path, text)).chains} == {
        (tmp_path / "a.a3m").resolve()
    }
    other = _write(tmp_path, text + entry.format("F", "b.a3m"))
    assert _error(other) == "chain F: copies of one protein have different alignments ('b.a3m')"


@pytest.mark.parametrize(
    ("msa", "expected"),
    [
        ("a" * 300, "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...': File name too long"),
        (
            "~nobody-of-that-name/x.a3m",
            "'~nobody-of-that-name/x.a3m': Could not determine home directory",
        ),
        ('"a\\0b.a3m"', "there is no file a\0b.a3m, neither in"),
    ],
)
def test_existing_file_refuses_names_that_are_not_unicode(
    tmp_path: Path, msa: str, expected: str
) -> None:
    message = _error(
        _write(tmp_path, f"sequences:\n- protein: {{id: A, sequence: MKTS, msa: {msa}}}\n")
    )
    assert message.startswith(f"chain A, msa: {expected}")


@pytest.mark.parametrize("place", ["msa", "cif"])
def test_read_file_refuses_pipes_devices_and_folders(tmp_path: Path, place: str) -> None:
    os.mkfifo(tmp_path / "pipe.a3m")
    (tmp_path / "zero.a3m").symlink_to("/dev/zero")
    (tmp_path / "folder.a3m").mkdir()
    for name, reason in (
        ("pipe", "not a regular file"),
        ("zero", "not a regular file"),
        ("folder", "is a folder"),
    ):
        text = (
            f"sequences:\n- protein: {{id: A, sequence: MKTS, msa: "
            f"{name if place == 'msa' else 'a'}.a3m}}\n"
        )
        path = _write(
            tmp_path,
            text + (f"templates: [{{cif: {name}.a3m}}]\n" if place == "cif" else ""),
        )
        with pytest.raises(ValueError, match=f"{name}.a3m: {reason}"):
            read_input(path)


def test_boltz_fasta_header_may_contain_a_space(tmp_path: Path) -> None:
    assert _read(_write(tmp_path, "> A|protein|empty\nMK\n", "job.fasta")).name == "job"


def test_read_takes_uniprot_headers_for_plain_fasta(tmp_path: Path) -> None:
    records = list(
        read_input(_write(tmp_path, ">sp|P12345|A_B\nMK\n>1ABC_1|Chain A|RNA\nMK\n", "job.fasta"))
    )
    assert [record.name for record in records] == ["P12345", "1ABC_1"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real inputs is not here")
def test_read_of_real_databases() -> None:
    zoo = _read(SHARED / "oracle" / "inputs" / "zoo.yaml")
    assert [chain.name for chain in zoo.chains] == [
        "A",
        "B",
        "C",
        "R",
        "D",
        "L",
        "H",
        "M",
        "G",
    ]
    assert zoo.chains[0].modifications == ((4, "SEP"), (9, "MSE"))
    fab = _read(SHARED / "data" / "complexes" / "7yds" / "input.yaml")
    assert [len(chain.sequence) for chain in fab.chains] == [147, 221, 217]
    assert all(chain.msa and chain.msa.is_file() for chain in fab.chains)
