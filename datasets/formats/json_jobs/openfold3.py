"""OpenFold3's JSON of queries, each a complex.

The form is that of https://github.com/aqlaboratory/openfold-3, docs/source/input_format.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from foldcp.complex import Bond, Chain, Complex, Kind, Record
from foldcp.datasets.format import Format, InputFile, ReadOptions
from foldcp.datasets.formats.boltz_constraints import read_bond
from foldcp.datasets.formats.json_jobs.job import (
    JSON_SUFFIXES,
    JobFile,
    JobParts,
    job_records,
    make_complex,
    read_code,
    rna_msa_note,
    seeds_note,
)
from foldcp.datasets.parsing.strict_yaml import (
    boolean,
    items,
    mapping,
    positive_integer,
    string,
    strings,
)
from foldcp.datasets.parsing.text_files import join_names
from foldcp.datasets.parsing.yaml_tree import Node, describe
from foldcp.datasets.sequences import normalize
from foldcp.files import reading

_KINDS: Mapping[str, Kind] = {
    "protein": "protein",
    "rna": "rna",
    "dna": "dna",
    "ligand": "ligand",
}
_SWITCHES = ("use_msas", "use_main_msas", "use_paired_msas")
_POLYMER_KEYS = ("non_canonical_residues", *_SWITCHES)
_MSA_KEYS = ("main_msa_file_paths", "paired_msa_file_paths")
_TEMPLATE_KEYS = ("template_alignment_file_path", "template_entry_chain_ids")
_KEYS: Mapping[Kind, tuple[str, ...]] = {
    "protein": (*_POLYMER_KEYS, *_MSA_KEYS, *_TEMPLATE_KEYS),
    "rna": (*_POLYMER_KEYS, *_MSA_KEYS),
    "dna": _POLYMER_KEYS,
    "ligand": ("ccd_codes", "smiles", "sdf_file_path", *_SWITCHES),
}


def _recognises(file: InputFile) -> bool:
    """Whether it is a JSON object with queries."""
    text = file.text
    if not text.lstrip().startswith("{") or '"queries"' not in text:
        return False
    return isinstance(file.json, dict) and "queries" in file.json


def _read(file: InputFile, options: ReadOptions) -> Iterator[Record]:
    """The complexes. Raises ValueError naming the file for one that has no queries."""
    with reading(str(file.path)):
        tree = file.json
        try:
            if tree is None:
                raise ValueError("not an input of OpenFold3, which is a JSON object")
            top = mapping(tree, "the file", ["queries"], ["seeds"])
            notes = seeds_note(top.get("seeds", []), "seeds")
            queries = top["queries"]
            if not isinstance(queries, dict) or not queries:
                raise ValueError(f"queries: expected queries by name, got {describe(queries)}")
        except ValueError as error:
            raise ValueError(f"{file.path}: {error}") from error
    job = JobFile(file.path, options, from_working_directory=True)
    named = [(name or f"query {i}", node) for i, (name, node) in enumerate(queries.items(), 1)]
    return job_records(
        ((name, partial(_complex, name, node, job, notes)) for name, node in named), job
    )


def _complex(name: str, node: Node, job: JobFile, notes: tuple[str, ...]) -> Complex:
    optional = ["query_name", "covalent_bonds", *_SWITCHES]
    query = mapping(node, f"query {describe(name)}", ["chains"], optional)
    chains: list[Chain] = []
    unused: dict[str, list[str]] = {"rna": [], "templates": []}
    for number, item in enumerate(items(query["chains"], "chains"), start=1):
        chains += _molecule(item, f"chains, entry {number}", query, job, unused)
    by_name = {chain.name: chain for chain in chains}
    bonds = tuple(
        _bond(item, f"covalent_bonds, entry {number}", by_name)
        for number, item in enumerate(
            items(query.get("covalent_bonds", []), "covalent_bonds"), start=1
        )
    )
    notes += rna_msa_note(unused["rna"])
    if unused["templates"]:
        names = join_names(unused["templates"])
        notes += (f"templates: the template alignments of chains {names} are not used",)
    return make_complex(name, chains, JobParts(bonds=bonds, notes=notes), job)


def _molecule(
    node: Node, location: str, query: Mapping[str, Node], job: JobFile, unused: dict[str, list[str]]
) -> list[Chain]:
    """The copies of an entry of `chains`."""
    written = node.get("molecule_type", "") if isinstance(node, dict) else ""
    kind = _KINDS.get(written.lower()) if isinstance(written, str) else None
    if kind is None:
        known = ", ".join(_KINDS)
        raise ValueError(f"{location}, molecule_type: expected {known}, got {describe(written)}")
    location = f"{location} ({kind})"
    required = ["molecule_type", "chain_ids"]
    if kind == "ligand":
        entry = mapping(node, location, required, _KEYS[kind])
        return _ligand(entry, location)
    entry = mapping(node, location, [*required, "sequence"], _KEYS[kind])
    names = strings(entry["chain_ids"], f"{location}, chain_ids")
    sequence = normalize(string(entry["sequence"], f"{location}, sequence"))
    place = f"{location}, non_canonical_residues"
    modifications = _modifications(entry.get("non_canonical_residues", {}), place)
    main: Path | None = None
    paired: Path | None = None
    alone = False
    if kind == "protein":
        main, paired, alone = _alignments(entry, location, query, job)
    if kind == "rna" and any(key in entry for key in _MSA_KEYS):
        unused["rna"] += names
    if any(key in entry for key in _TEMPLATE_KEYS):
        unused["templates"] += names
    return [
        Chain(
            name,
            kind,
            sequence,
            msa=main,
            modifications=modifications,
            paired_msa=paired,
            single_sequence=alone,
        )
        for name in names
    ]


def _ligand(entry: Mapping[str, Node], location: str) -> list[Chain]:
    if "sdf_file_path" in entry:
        raise ValueError(
            f"{location}, sdf_file_path: {describe(entry['sdf_file_path'])} is a file, which is "
            "not supported; give ccd_codes or smiles"
        )
    if ("ccd_codes" in entry) == ("smiles" in entry):
        raise ValueError(f"{location}: give either ccd_codes or smiles")
    codes: tuple[str, ...] = ()
    if "ccd_codes" in entry:
        place = f"{location}, ccd_codes"
        codes = tuple(read_code(code, place) for code in strings(entry["ccd_codes"], place))
    smiles = string(entry["smiles"], f"{location}, smiles").strip() if "smiles" in entry else ""
    return [
        Chain(name, "ligand", ccd=codes, smiles=smiles)
        for name in strings(entry["chain_ids"], f"{location}, chain_ids")
    ]


def _modifications(node: Node, location: str) -> tuple[tuple[int, str], ...]:
    """CCD codes by position."""
    if not isinstance(node, dict):
        raise ValueError(f"{location}: expected codes by position, got {describe(node)}")
    found = {
        positive_integer(position, location): read_code(code, f"{location}, {position}")
        for position, code in node.items()
    }
    return tuple(sorted(found.items()))


def _alignments(
    entry: Mapping[str, Node], location: str, query: Mapping[str, Node], job: JobFile
) -> tuple[Path | None, Path | None, bool]:
    """The alignments, main and paired, and whether the query says that there are none."""
    use_all, use_main, use_paired = (
        boolean(values.get(key, "true"), f"{where}, {key}")
        and boolean(entry.get(key, "true"), f"{location}, {key}")
        for key in _SWITCHES
        for values, where in [(query, "the query")]
    )
    found = []
    for key, used in zip(_MSA_KEYS, (use_all and use_main, use_all and use_paired), strict=True):
        place = f"{location}, {key}"
        paths = strings(entry[key], place) if key in entry else ()
        if len(paths) > 1:
            raise ValueError(f"{place}: {len(paths)} files; one alignment is read")
        found.append(job.alignment(paths[0], place) if paths and used else None)
    alone = not use_all or not (use_main or use_paired)
    return found[0], found[1], alone


def _bond(node: Node, location: str, chains: Mapping[str, Chain]) -> Bond:
    """A bond of two atoms, each [chain, residue, atom name]."""
    atoms = items(node, location)
    if len(atoms) != 2:
        raise ValueError(f"{location}: expected two atoms, got {describe(node)}")
    bond = read_bond({"atom1": atoms[0], "atom2": atoms[1]}, location, chains)
    for name, _, atom in (bond.atom1, bond.atom2):
        if atom.isdigit() or chains[name].smiles:
            raise ValueError(
                f"{location}: the atom {describe(atom)} of chain {name} is a number; give the name "
                "of an atom of the CCD"
            )
    return bond


FORMAT = Format("openfold3", "OpenFold3 JSON", _recognises, _read, suffixes=JSON_SUFFIXES)
