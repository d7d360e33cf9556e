"""AlphaFold 3's JSON: one job.

The form is that of https://github.com/google-deepmind/alphafold3/blob/main/docs/input.md, versions
1 to 4. Alignments and templates may be texts inside the file; they are read from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from foldcp.complex import Bond, Chain, Complex, Kind, Template
from foldcp.datasets.format import Format, InputFile, ReadOptions
from foldcp.datasets.formats.boltz_constraints import read_bond
from foldcp.datasets.formats.json_jobs.job import (
    JSON_SUFFIXES,
    JobFile,
    JobParts,
    is_set,
    make_complex,
    read_code,
    read_modifications,
    rna_msa_note,
    seeds_note,
)
from foldcp.datasets.parsing.strict_yaml import items, mapping, single_entry, string, strings
from foldcp.datasets.parsing.yaml_tree import Node, describe
from foldcp.datasets.sequences import normalize
from foldcp.files import EmbeddedFile, FileSource, reading

_VERSIONS = ("1", "2", "3", "4")
_REQUIRED = ("name", "modelSeeds", "sequences", "dialect", "version")
_OPTIONAL = ("bondedAtomPairs", "userCCD", "userCCDPath")
_POLYMERS: Mapping[str, Kind] = {"protein": "protein", "rna": "rna", "dna": "dna"}
_KINDS = (*_POLYMERS, "ligand")
_UNPAIRED = ("unpairedMsa", "unpairedMsaPath")
_PAIRED = ("pairedMsa", "pairedMsaPath")
_POLYMER_KEYS: Mapping[str, tuple[str, ...]] = {
    "protein": (*_UNPAIRED, *_PAIRED, "templates"),
    "rna": _UNPAIRED,
    "dna": (),
}
_MODIFICATION_KEYS: Mapping[str, tuple[str, str]] = {
    "protein": ("ptmType", "ptmPosition"),
    "rna": ("modificationType", "basePosition"),
    "dna": ("modificationType", "basePosition"),
}
_TEMPLATE_KEYS = ("mmcif", "mmcifPath")
_INDEX_KEYS = ("queryIndices", "templateIndices")


def _recognises(file: InputFile) -> bool:
    """Whether it is a JSON object with a dialect, or with seeds and sequences."""
    text = file.text
    if not text.lstrip().startswith("{") or not ('"dialect"' in text or '"modelSeeds"' in text):
        return False
    return isinstance(file.json, dict) and bool({"dialect", "modelSeeds"} & file.json.keys())


def _read(file: InputFile, options: ReadOptions) -> list[Complex]:
    """The complex. Raises ValueError naming the file, the entry and the value."""
    with reading(str(file.path)):
        if file.json is None:
            raise ValueError(f"{file.path}: not an input of AlphaFold 3, which is a JSON object")
        try:
            return [_complex(file.json, JobFile(file.path, options))]
        except ValueError as error:
            raise ValueError(f"{file.path}: {error}") from error


@dataclass(slots=True)
class _Draft:
    """What the entries of a job hold, one after the other."""

    job: JobFile
    chains: list[Chain] = field(default_factory=list)
    templates: list[Template] = field(default_factory=list)
    rna_with_msa: list[str] = field(default_factory=list)
    texts: dict[str, EmbeddedFile] = field(default_factory=dict)  # equal ones are one file


def _complex(node: Node, job: JobFile) -> Complex:
    top = mapping(node, "the file", _REQUIRED, _OPTIONAL)
    if top["dialect"] != "alphafold3":
        raise ValueError(f"dialect: expected 'alphafold3', got {describe(top['dialect'])}")
    if top["version"] not in _VERSIONS:
        raise ValueError(f"version: expected one of 1 to 4, got {describe(top['version'])}")
    for key in ("userCCD", "userCCDPath"):
        if key in top:
            raise ValueError(
                f"{key}: components defined by the user are not supported; give a ligand as SMILES"
            )
    draft = _Draft(job)
    for index, item in enumerate(items(top["sequences"], "sequences")):
        _add_entry(draft, item, index)
    by_name = {chain.name: chain for chain in draft.chains}
    parts = JobParts(
        bonds=tuple(
            _bond(pair, f"bondedAtomPairs, entry {number}", by_name)
            for number, pair in enumerate(
                items(top.get("bondedAtomPairs", []), "bondedAtomPairs"), start=1
            )
        ),
        templates=tuple(draft.templates),
        notes=(*seeds_note(top["modelSeeds"], "modelSeeds"), *rna_msa_note(draft.rna_with_msa)),
    )
    return make_complex(string(top["name"], "name"), draft.chains, parts, job)


def _add_entry(draft: _Draft, item: Node, index: int) -> None:
    key, value = single_entry(item, f"sequences, entry {index + 1}", _KINDS)
    location = f"sequences, entry {index + 1} ({key})"
    if key == "ligand":
        draft.chains += _ligand(value, location)
        return
    optional = ("modifications", "description", *_POLYMER_KEYS[key])
    entry = mapping(value, location, ["id", "sequence"], optional)
    assert isinstance(value, dict)  # with its empty texts, which `entry` lacks
    names = strings(entry["id"], f"{location}, id")
    sequence = normalize(string(entry["sequence"], f"{location}, sequence"))
    modifications = read_modifications(
        entry.get("modifications", []), f"{location}, modifications", *_MODIFICATION_KEYS[key]
    )
    pointer = f"/sequences/{index}/{key}"
    msa: FileSource | None = None
    paired: FileSource | None = None
    single = False
    if key == "protein":
        msa, paired, single = _protein_msas(draft, value, location, pointer)
        nodes = items(entry.get("templates", []), f"{location}, templates")
        for number, node in enumerate(nodes):
            place = f"{location}, templates, entry {number + 1}"
            inside = f"{pointer}/templates/{number}/mmcif"
            template = _template(draft.job, node, place, inside, names, len(sequence))
            draft.templates.append(template)
    elif key == "rna" and _source(draft, value, location, pointer, _UNPAIRED):
        draft.rna_with_msa += names
    draft.chains += [
        Chain(
            name,
            _POLYMERS[key],
            sequence,
            msa=msa,
            modifications=modifications,
            paired_msa=paired,
            single_sequence=single,
        )
        for name in names
    ]


def _ligand(node: Node, location: str) -> list[Chain]:
    entry = mapping(node, location, ["id"], ["ccdCodes", "smiles", "description"])
    if ("ccdCodes" in entry) == ("smiles" in entry):
        raise ValueError(f"{location}: give either ccdCodes or smiles")
    codes: tuple[str, ...] = ()
    if "ccdCodes" in entry:
        place = f"{location}, ccdCodes"
        codes = tuple(read_code(code, place) for code in strings(entry["ccdCodes"], place))
    smiles = string(entry["smiles"], f"{location}, smiles").strip() if "smiles" in entry else ""
    return [
        Chain(name, "ligand", ccd=codes, smiles=smiles)
        for name in strings(entry["id"], f"{location}, id")
    ]


def _protein_msas(
    draft: _Draft, node: Mapping[str, Node], location: str, pointer: str
) -> tuple[FileSource | None, FileSource | None, bool]:
    """The alignments, unpaired and paired, and whether the job says that there are none."""
    msa = _source(draft, node, location, pointer, _UNPAIRED)
    paired = _source(draft, node, location, pointer, _PAIRED)
    if (msa is None) != (paired is None):
        unset = "unpairedMsa" if msa is None else "pairedMsa"
        raise ValueError(
            f'{location}: {unset} is missing; give both unpairedMsa and pairedMsa, "" for none, '
            "or neither"
        )
    return msa or None, paired or None, msa == "" and paired == ""


def _source(
    draft: _Draft, node: Mapping[str, Node], location: str, pointer: str, keys: tuple[str, str]
) -> FileSource | Literal[""] | None:
    """The file of an alignment, "" where none is meant, None where the job says nothing."""
    inside, by_path = keys
    if is_set(node, inside) and is_set(node, by_path):
        raise ValueError(f"{location}: give either {inside} or {by_path}")
    if is_set(node, by_path):
        return draft.job.alignment(node[by_path], f"{location}, {by_path}")
    if not is_set(node, inside):
        return None
    text = node[inside]
    if text == "":
        return ""
    string(text, f"{location}, {inside}")
    source = EmbeddedFile(draft.job.path.resolve(), f"{pointer}/{inside}", ".a3m")
    return draft.texts.setdefault(str(text), source)


def _template(
    job: JobFile, node: Node, location: str, pointer: str, chains: tuple[str, ...], length: int
) -> Template:
    entry = mapping(node, location, _INDEX_KEYS, _TEMPLATE_KEYS)
    if ("mmcif" in entry) == ("mmcifPath" in entry):
        raise ValueError(f"{location}: give either mmcif or mmcifPath")
    source: FileSource
    if "mmcif" in entry:
        string(entry["mmcif"], f"{location}, mmcif")
        source = EmbeddedFile(job.path.resolve(), pointer, ".cif")
    else:
        source = job.file(entry["mmcifPath"], f"{location}, mmcifPath")
    query, template = (_indices(entry[key], f"{location}, {key}") for key in _INDEX_KEYS)
    if len(query) != len(template):
        raise ValueError(
            f"{location}: {len(query)} in queryIndices, but {len(template)} in templateIndices"
        )
    if not query:
        raise ValueError(f"{location}: queryIndices is empty")
    if max(query) >= length:
        raise ValueError(
            f"{location}, queryIndices: {max(query)} (from 0), but the chain has {length} residues"
        )
    if len(set(query)) < len(query):
        twice = next(number for number in query if query.count(number) > 1)
        raise ValueError(f"{location}, queryIndices: {twice} occurs twice")
    residues = tuple((q + 1, t + 1) for q, t in zip(query, template, strict=True))
    return Template(source, chains, residues=residues)


def _indices(node: Node, location: str) -> list[int]:
    """Numbers from 0."""
    found = []
    for item in items(node, location):
        if not isinstance(item, str) or not (item.isascii() and item.isdigit()):
            raise ValueError(f"{location}: expected numbers from 0, got {describe(item)}")
        found.append(int(item[:10]))
    return found


def _bond(node: Node, location: str, chains: Mapping[str, Chain]) -> Bond:
    atoms = items(node, location)
    if len(atoms) != 2:
        raise ValueError(f"{location}: expected two atoms, got {describe(node)}")
    bond = read_bond({"atom1": atoms[0], "atom2": atoms[1]}, location, chains)
    for name, _, _ in (bond.atom1, bond.atom2):
        if chains[name].smiles:
            raise ValueError(
                f"{location}: chain {name} is a SMILES, whose atoms have no names; use ccdCodes"
            )
    return bond


FORMAT = Format("alphafold3", "AlphaFold 3 JSON", _recognises, _read, suffixes=JSON_SUFFIXES)
