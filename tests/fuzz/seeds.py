"""Valid inputs of every reader, which fuzzing damages."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile

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
CORUM_JSON = (
    b'[{"complex_id": 1, "complex_name": "first", "organism": "Human", "subunits": ['
    b'{"swissprot": {"uniprot_id": "P00001"}, "stoichiometry": "2"}, '
    b'{"swissprot": {"uniprot_id": "P00002"}, "stoichiometry": null}]}]',
    b'[{"ComplexID": "4", "ComplexName": "x", "subunits(UniProt IDs)": "P00001;Q00003"}, '
    b'{"ComplexID": 5, "subunits(UniProt IDs)": ["P00002"], "stoichiometry": [true, 1.5e3]}]',
)
COPIES = (
    b"complex\taccession\tcopies\n1\tP00001\t2\n1\tP00002\t1.0\n2\tp00003\t1000\n",
    b'sep=;\nComplexAC;UniProt;Stoichiometry\nCPX-1;P00001;4\n\n"CPX 2";Q00003;1\n',
)
OBSOLETE = (
    b"     Secondary accession numbers\n\nSecondary AC     Primary AC\n________     ________\n"
    b"A0A000ABC1     P00001\nQ11111     P00002\nQ11111     Q00003\n",
    b"obsolete,present\nQ22222,P00001\n",
)
# A table of complexes, for the readers of what stands beside one.
TABLE = b"complex_id\tsubunits_uniprot_id\n1\tP00001;P00002\n2\tP00002-2;Q00003;P00001:2-5\n"
STOCKHOLM = (
    b"# STOCKHOLM 1.0\n#=GF ID x\n#=GS hit/1-16 DE [subseq from] OX=9606 some text\n"
    b"query         MKTA-YIAKQ\nhit/1-16      MKTAaYLA.Q\n#=GC RF       xxxx.xxxxx\n\n"
    b"query         RQISFVK\nhit/1-16      R--SFVK\n//\n",
    b"# STOCKHOLM 1.0\n101 MKT\nb MK~\nb_2 m_t\n//\n",
)
SETTINGS = (
    b"model:\n  samples: 2\n  seed: 7\nrun: {deadline_factor: 2.5}\nwrite: [boltz, pae]\n"
    b"msa: {max_rows: 100, pairing: taxonomy, cut_to_range: true}\n"
    b"limits:\n  msa_bytes: 1_000\n",
    b"msa.missing: single-sequence\nwrite: boltz,pde\nrun.start_deadline: 9\n"
    b"limits: {input_bytes: 0x10, msa_bytes: 1:30}\n",
)
_DIGEST = "0123456789abcdef" * 4
INDEX = tuple(
    json.dumps(
        {
            "sha256": _DIGEST,
            "length": 16,
            "depth": 3,
            "neff": 1.5,
            "coverage": 0.75,
            "origin": origin,
            "identity": _DIGEST,
            "file_sha256": _DIGEST,
        }
    ).encode()
    + b"\n"
    for origin in ("", "a/b.a3m")
)
SERVER_QUERIES = ("MKTAYIAKQRQISFVK", "GSHMRYAACGG")
SERVER_FILE = "uniref.a3m"


def tarred(members: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar archive of files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue().rstrip(b"\0") + bytes(1024)


def server_alignments() -> bytes:
    """The alignments of `SERVER_QUERIES`, each ended by NUL."""
    one = f">101\n{SERVER_QUERIES[0]}\n>h\t9\nMKTAYLAKaaQR-ISFVK\n".encode()
    two = f">102\n{SERVER_QUERIES[1]}\n>g\nGSHM-YAACGG\n".encode()
    return one + b"\0" + two + b"\0"


def _archives() -> tuple[bytes, ...]:
    both = server_alignments()
    long_name = "/".join(["directory"] * 30)
    return (
        tarred({"msa.sh": b"#", SERVER_FILE: both}),
        tarred({long_name: b"", f"./{SERVER_FILE}": both}, tarfile.GNU_FORMAT),
        tarred({long_name + "é": b"", SERVER_FILE: both}, tarfile.PAX_FORMAT),
    )


ARCHIVES = _archives()


def with_checksums(data: bytes) -> bytes:
    """A damaged tar archive whose headers have the right sums, without which none is read."""
    changed = bytearray(data)
    for start in range(0, len(data) - 511, 512):
        if data[start + 257 : start + 262] == b"ustar":
            changed[start + 148 : start + 156] = b" " * 8
            total = sum(changed[start : start + 512])
            changed[start + 148 : start + 156] = b"%06o\0 " % total
    return bytes(changed)


_MARK = b"\n<!-- next -->\n"
_BOOK = b"""<workbook xmlns:r="r"><sheets><sheet name="s" r:id="rId7"/></sheets></workbook>"""
_LINKS = b"""<Relationships><Relationship Id="rId7" Target="worksheets/s.xml"/></Relationships>"""
_SHARED = b"""<sst xmlns="m"><si><r><t>P00001;</t></r><r><t>P00002</t></r><rPh><t>g</t></rPh></si>
<si><t>complex_id</t></si><si><t>subunits_uniprot_id</t></si></sst>"""
_SHEET = b"""<worksheet xmlns="m"><sheetData><row r="1"><c r="A1" t="s"><v>1</v></c><c r="B1" t="s">
<v>2</v></c></row><row r="2"><c r="A2"><v>1</v></c><c t="s"><v>0</v></c></row>
<row><c t="inlineStr"><is><t>2_x0041_</t></is></c><c r="B3" t="str"><f>A1</f><v>Q00003</v></c></row>
</sheetData></worksheet>"""
_MEMBERS = ("xl/workbook.xml", "xl/_rels/workbook.xml.rels", "xl/sharedStrings.xml")
WORKBOOK = (_MARK.join((_BOOK, _LINKS, _SHARED, _SHEET)),)


def as_workbook(data: bytes) -> bytes:
    """A workbook of the parts of a text: book, links, shared strings and sheet."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        parts = data.split(_MARK)
        for name, part in zip((*_MEMBERS, "xl/worksheets/s.xml"), parts, strict=False):
            archive.writestr(name, part)
    return packed.getvalue()


def gzipped(data: bytes) -> bytes:
    """A gzip file."""
    return gzip.compress(data, 1, mtime=0)


_TEMPLATE = {"mmcif": CIF[0].decode(), "queryIndices": [0, 1], "templateIndices": [1, 2]}
_PROTEIN = {
    "id": "A",
    "sequence": "MKTA",
    "unpairedMsa": ">q\nMKTA\n>h\nMKaT-\n",
    "pairedMsa": ">q\nMKTA\n>h_9606\nMRTA\n",
    "templates": [_TEMPLATE],
}
EMBEDDED = tuple(
    json.dumps(
        {
            "dialect": "alphafold3",
            "version": 1,
            "name": "n",
            "modelSeeds": [1],
            "sequences": [{"protein": protein}],
        }
    ).encode()
    for protein in (_PROTEIN, {**_PROTEIN, "templates": []})
)
BESIDE = {"a.a3m": A3M[0], "t.cif": CIF[0], "s.fasta": SEQUENCES}


def _zipped(data: bytes, method: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr("a.csv", data)
    return packed.getvalue()


def packed() -> tuple[bytes, ...]:
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
