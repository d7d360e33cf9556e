"""The readers that are fuzzed: how each is called, valid inputs, and expected exceptions."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from foldcp.complex import Complex
from foldcp.datasets.format import ReadOptions
from foldcp.datasets.reader import read
from foldcp.features.featurize import featurize
from foldcp.features.msa.read import read_msa
from foldcp.features.steering import steering_constraints
from foldcp.features.templates.structure import read_template
from foldcp.files import LZMAError
from tests.fuzz.mutate import mutated
from tests.fuzz.structured_yaml import make_yaml

Make = Callable[[random.Random], bytes]
Run = Callable[[Path], object]


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    `make` gives an input, which is written to `file` beside the `others`; `run` reads it.
    `expected` are the exceptions of libraries that the format may raise and the reader turns into a
    ValueError; any other that it turns into one is a fault of ours.
    """

    name: str
    file: str
    make: Make
    run: Run
    expected: tuple[type[Exception], ...] = ()
    others: dict[str, bytes] = field(default_factory=dict)


PROTEINS = {
    "P00001": "MKTAYIAKQRQISFVK",
    "P00002": "GSHMRYAACGG",
    "P00002-2": "GSHM",
    "Q00003": "MSTNPKPQRKTK",
}
SEQUENCES = b"".join(
    f">sp|{name}|X_HUMAN some text\n{letters}\n".encode() for name, letters in PROTEINS.items()
)
CORUM = (
    b"complex_id\tcomplex_name\torganism\tsubunits_uniprot_id\tsubunits_stoechiometrie\t"
    b"comment_complex\n"
    b'1\tfirst\tHuman\tP00001;P00002\t2;1\t"two\nlines"\n'
    b'2\t"the ""core"""\tMouse\tP00002-2;Q00003;None\t;;\tnone\n'
    b"3\tthird\tHuman\t(P00001);P00002:2-5\t7.0;?\t\n",
    b"ComplexID,ComplexName,Organism,subunits(UniProt "
    b"IDs)\n4,fourth,Human,P00001;P00002-9\n5,,Rat,Q99999\n",
)
PORTAL = (
    b"#Complex ac\tRecommended name\tTaxonomy identifier\tIdentifiers (and stoichiometry) of "
    b"molecules in complex\t"
    b"Source\tExpanded participant list\n"
    b'CPX-1\tone\t9606\tP00001(2)|URS0001_9606(1)|CPX-2(1)\tpsi-mi:"MI:0469"(IntAct)'
    b"\tP00001(2)|[P00002,Q00003](1)\nCPX-2\t-\t10090\tP00002-PRO_0000000092(0)|CHEBI:29035(2)\ts\t-\n",
)
HUMAP = (
    b"HuMAP3_ID,ComplexConfidence,Uniprot_ACCs,genenames\nhuMAP3_1.1,4,P00001 P00002,ONE "
    b"TWO\nhuMAP3_2.1,1,Q00003,X\n",
    b"HuMAP2_ID,Confidence,Uniprot_ACCs,genenames\nHuMAP2_1,4,P00001 P00002 Q00003,ONE TWO\n",
)
PAIRS = (
    b"protein_a,protein_b,name\nP00001,P00002,x\nP00001,P00002-2,\nQ00003,Q00003:2-5,homo\n",
    b"bait\tprey\nP00001\tP00002\n\nQ00003\tP00001\n",
)
PULLDOWN = (b"P00001,2;P00002,1-9\nP00001;Q00003\nQ00003\n",)
FASTA = (
    b">sp|P00001|A_HUMAN one\nMKTAYIAK\nQRQISFVK*\n>pair one\nMKTAYIAK : GSHMRYAACGG\n>pair "
    b"two\nMKT:\nGSH\n",
    b">A|protein|a.a3m\nMKTAYIAKQRQISFVK\n>B|dna\nGATTACA\n>C|rna|\nGAUUACA\n>D|ccd\nATP\n>E|smiles\nCC(=O)O\n",
    b">protein|name=A\nMKTAYIAK\n>ligand|name=B\nCC(=O)O\n>rna|name=C\nGAUUACA\n",
)
COLABFOLD = (
    b"id,sequence\nx,MKTAYIAK:GSHMRYAACGG\nlong name,MKTAYIAK:MKTAYIAK\nsingle,MSTNPKPQRKTK\n",
    b'note,Sequence,ID\n"a, b","MKT:\nGSH",one\n,ACD,two\n',
)
YAML = (
    b"version: 1\nsequences:\n- protein: {id: [A, B], sequence: MKTAYIAKQRQISFVK, msa: a.a3m}\n"
    b"- protein:\n    id: C\n    sequence: >\n      GSHMRY\n      AACGG\n    msa: empty\n    "
    b"cyclic: true\n"
    b"    modifications: [{position: 4, ccd: MSE}]\n- rna: {id: R, sequence: GAUUACA}\n"
    b'- ligand: {id: L, ccd: [NAG, NAG]}\n- ligand: {id: S, smiles: "CC(=O)O"}\n'
    b"constraints:\n- bond: {atom1: [L, 1, O4], atom2: [L, 2, C1]}\n- pocket: {binder: S, "
    b"contacts: [[A, 3], [C, 2]]}\n"
    b"- contact: {token1: [A, 4], token2: [R, 2], max_distance: 7.5, force: true}\n"
    b"templates:\n- cif: t.cif\n  chain_id: A\n  force: true\n  threshold: 2\n",
    b'{"version": 1, "sequences": [{"protein": {"id": "A", "sequence": "MKT", "msa": "empty"}}, '
    b'{"ligand": {"id": ["B", "C"], "ccd": "ATP"}}]}',
    b"sequences:\n- &p\n  protein: &q {id: A, sequence: &s MKTAY, msa: ./a.a3m}\n- dna: {id: B, "
    b"sequence: GATTACA}\n",
)
JOBS = tuple(
    text.encode()
    for text in (
        '{"name": "n", "modelSeeds": [1], "dialect": "alphafold3", "version": 2, "sequences": ['
        '{"protein": {"id": ["A", "B"], "sequence": "MKTS", "unpairedMsa": ">q\\nMKTS\\n", '
        '"pairedMsaPath": "a.a3m", "modifications": [{"ptmType": "SEP", "ptmPosition": 4}], '
        '"templates": [{"mmcif": "d", "queryIndices": [0, 1], "templateIndices": [2, 3]}]}}, '
        '{"rna": {"id": "R", "sequence": "GAU", "unpairedMsa": ""}}, '
        '{"ligand": {"id": "L", "ccdCodes": ["ATP"]}}], '
        '"bondedAtomPairs": [[["A", 4, "OG"], ["L", 1, "PG"]]]}',
        '[{"name": "j", "modelSeeds": [], "sequences": [{"proteinChain": {"sequence": "MKTS", '
        '"count": 2, "glycans": []}}, {"ion": {"ion": "MG", "count": 1}}, '
        '{"ligand": {"ligand": "CCD_ATP", "count": 1}}]}]',
        '[{"name": "j", "sequences": [{"proteinChain": {"sequence": "MKTS", "count": 1, '
        '"id": ["P"], "unpairedMsaPath": "a.a3m"}}, {"ligand": {"ligand": "CCO", "count": 2}}, '
        '{"ligand": {"ligand": "CCD_ATP", "count": 1}}], "covalent_bonds": [{"entity1": "1", '
        '"position1": 4, "atom1": "OG", "entity2": 3, "position2": 1, "atom2": "PG"}], '
        '"constraint": {"pocket": {"binder_chain": {"entity": 3, "copy": 1}, "contact_residues": '
        '[{"entity": 1, "copy": 1, "position": 2}], "max_distance": 8}}}]',
        '{"queries": {"q": {"chains": [{"molecule_type": "protein", "chain_ids": ["A"], '
        '"sequence": "MKTS", "non_canonical_residues": {"4": "SEP"}, "use_msas": true, '
        '"main_msa_file_paths": "a.a3m"}, {"molecule_type": "ligand", "chain_ids": "L", '
        '"ccd_codes": ["ATP"]}], "covalent_bonds": [[["A", 4, "OG"], ["L", 1, "PG"]]]}}}',
    )
)
A3M = (
    b">101\nMKTAYIAKQRQISFVK\n>UniRef100_A/1-16\nMKTAYLAKaaQR-ISFVK\n>b\n--TAYLA\nKQR-ISF--\n",
    b"#16\t2\n>101\nMKTAYIAKQRQISFVK\n>b\nMKTGYIAkkKQR-ISFVK\n",
    b"#16,11\t1,1\n>101\t102\nMKTAYIAKQRQISFVKGSHMRYAACGG\n>a\tb\nMKTAYLAKQRQLSFVKGSHMRFAACGG\n"
    b">101\nMKTAYIAKQRQISFVK-----------\n>102\n----------------GSHMRYAACGG\n",
)
MSA_CSV = (
    b"key,sequence\n-1,MKTAYIAKQRQISFVK\n,MKTAYLAKaaQR-ISFVK\n15,MKTAYLAKQR-ISFVKK\n16.0,--TAYLAKQR-ISFVK-\n",
    b"sequence,key\nMKTAYIAKQRQISFVK,\nMKTAYLAKQRQISFVK,3\n",
)
_ATOM = "ATOM  {0:5d} {1:<4s} {2} A{3:4d}    {4:8.3f}{5:8.3f}{6:8.3f}  1.00 20.00           {7}\n"
_ATOMS = [
    (
        number,
        f" {name}",
        residue,
        index,
        index * 3.8 + shift,
        shift * 2.0,
        shift,
        name[0],
    )
    for index, residue in enumerate(("MET", "LYS", "THR", "ALA"), start=1)
    for shift, (number, name) in enumerate(((1, "N"), (2, "CA"), (3, "C"), (4, "O"), (5, "CB")))
]
PDB = (
    "".join(
        [
            "HEADER    TEST\nSEQRES   1 A    4  MET LYS THR ALA\n",
            *(_ATOM.format(*atom) for atom in _ATOMS),
            "TER\nEND\n",
        ]
    ).encode(),
)
_COLUMNS = """
    group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id
    label_entity_id label_seq_id
    pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy B_iso_or_equiv auth_seq_id
    auth_asym_id pdbx_PDB_model_num
""".split()  # noqa: SIM905
CIF = (
    "".join(
        [
            "data_TEST\nloop_\n_entity.id\n_entity.type\n1 polymer\n",
            "loop_\n_entity_poly.entity_id\n_entity_poly.type\n1 polypeptide(L)\n",
            "loop_\n_entity_poly_seq.entity_id\n_entity_poly_seq.num\n_entity_poly_seq.mon_id\n",
            *(f"1 {i} {name}\n" for i, name in enumerate(("MET", "LYS", "THR", "ALA"), start=1)),
            "loop_\n_struct_asym.id\n_struct_asym.entity_id\nA 1\nloop_\n",
            *(f"_atom_site.{name}\n" for name in _COLUMNS),
            *(
                f"ATOM {n} {element} {name.strip()} . {residue} A 1 {i} ? {x:.3f} {y:.3f} {z:.3f} "
                f"1.00 20.00 {i} A 1\n"
                for n, (_, name, residue, i, x, y, z, element) in enumerate(_ATOMS, start=1)
            ),
        ]
    ).encode(),
)
BESIDE = {"a.a3m": A3M[0], "t.cif": CIF[0], "s.fasta": SEQUENCES}


def _zipped(data: bytes, method: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr("a.csv", data)
    return packed.getvalue()


def _packed() -> tuple[bytes, ...]:
    methods = (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
        zipfile.ZIP_BZIP2,
        zipfile.ZIP_LZMA,
    )
    return (
        gzip.compress(COLABFOLD[0], mtime=0),
        *(_zipped(COLABFOLD[0], method) for method in methods),
    )


def _records(path: Path) -> object:
    options = ReadOptions(sequences=(path.with_name("s.fasta"),), max_bytes=10_000_000)
    return list(read(path, options))


def _featurized(path: Path) -> object:
    """The complexes of an input, as far as the network's features and the terms that steer."""
    complexes = [record for record in read(path) if isinstance(record, Complex)]
    for complex in complexes:
        featurize(complex, seed=1)
        steering_constraints(complex, potentials=True)
    return complexes


def _mutating(seeds: Sequence[bytes]) -> Make:
    return lambda rng: mutated(rng, seeds)


# A text may look like YAML or a table under any file name.
_TEXT = (csv.Error, yaml.YAMLError)
_PACKED = (
    *_TEXT,
    OSError,
    EOFError,
    RuntimeError,
    zlib.error,
    LZMAError,
    zipfile.BadZipFile,
)
_NAMED = (
    *_TEXT,
    OSError,
    RuntimeError,
)  # names of files that are too long, or in an unknown home
_JOBS = (*_NAMED, json.JSONDecodeError)
_GEMMI = (OSError, RuntimeError, ValueError)

READERS = {
    reader.name: reader
    for reader in (
        Reader("corum", "x.tsv", _mutating(CORUM), _records, _TEXT, BESIDE),
        Reader("complexportal", "x.tsv", _mutating(PORTAL), _records, _TEXT, BESIDE),
        Reader("humap", "x.csv", _mutating(HUMAP), _records, _TEXT, BESIDE),
        Reader("pairs", "x.csv", _mutating(PAIRS), _records, _TEXT, BESIDE),
        Reader("alphapulldown", "x.txt", _mutating(PULLDOWN), _records, _TEXT, BESIDE),
        Reader("fasta", "x.fasta", _mutating(FASTA), _records, _NAMED, BESIDE),
        Reader("colabfold", "x.csv", _mutating(COLABFOLD), _records, _TEXT, BESIDE),
        Reader("packed", "x.dat", _mutating(_packed()), _records, _PACKED, BESIDE),
        Reader("yaml", "x.yaml", _mutating(YAML), _records, _NAMED, BESIDE),
        Reader("jobs", "x.json", _mutating(JOBS), _records, _JOBS, BESIDE),
        Reader(
            "a3m",
            "x.a3m",
            _mutating(A3M),
            lambda path: read_msa(path, 100),
            (UnicodeDecodeError,),
        ),
        Reader(
            "msa_csv",
            "x.csv",
            _mutating(MSA_CSV),
            lambda path: read_msa(path, 100, True),
            (csv.Error, UnicodeDecodeError),
        ),
        Reader("cif", "x.cif", _mutating(CIF), read_template, _GEMMI),
        Reader("pdb", "x.pdb", _mutating(PDB), read_template, _GEMMI),
        Reader("structured", "x.yaml", make_yaml, _records, _NAMED, BESIDE),
        Reader("features", "x.yaml", make_yaml, _featurized, _NAMED, BESIDE),
    )
}
