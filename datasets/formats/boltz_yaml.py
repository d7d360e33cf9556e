"""Boltz's YAML: one complex.

The form is what boltz 2.2.1 reads
(https://github.com/jwohlwend/boltz/blob/v2.2.1/docs/prediction.md) but for affinity. Keys that are
not in it are errors, and so are letters that Boltz would take for unknown residues.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from foldcp.complex import Chain, Complex, Kind
from foldcp.datasets.chains import group_by_entity
from foldcp.datasets.format import Format, InputFile, ReadOptions
from foldcp.datasets.formats.boltz_constraints import read_constraints, read_templates
from foldcp.datasets.msas import msa_notes
from foldcp.datasets.parsing.strict_yaml import (
    boolean,
    existing_file,
    items,
    mapping,
    positive_integer,
    single_entry,
    string,
    strings,
)
from foldcp.datasets.parsing.text_files import stem
from foldcp.datasets.parsing.yaml_tree import Node, describe, parse
from foldcp.datasets.sequences import normalize
from foldcp.files import FileSource, reading, unpacked_name

_SUFFIXES = (".yaml", ".yml", ".json")
_ALIGNMENTS = (".csv", ".a3m")
_START = re.compile(r"(?:\s|#.*\n|---.*\n)*(?:(?:sequences|version)\s*:|\{)")
_MAX_START = 100_000  # characters in which a YAML file must begin
_POLYMERS: Mapping[str, Kind] = {"protein": "protein", "dna": "dna", "rna": "rna"}
_KINDS = (*_POLYMERS, "ligand")
_REQUIRED = ("sequences",)
_OPTIONAL = ("version", "constraints", "templates", "properties")
# What the inputs of other programs hold and Boltz's never does.
_OTHER_PROGRAMS = {
    "entities:": "a design of BoltzGen",
}


def complex_of_schema(path: Path, schema: Node, options: ReadOptions) -> Complex:
    """The complex that the tree of a YAML describes, named after its file.

    Raises ValueError naming the entry and the value.
    """
    top = mapping(schema, "the file", _REQUIRED, _OPTIONAL)
    version = top.get("version", "1")
    if version != "1":
        raise ValueError(f"unsupported version {describe(version)}; expected 1")
    if top.get("properties"):
        raise ValueError("properties: affinity is not supported yet")
    drafts = [
        draft
        for number, item in enumerate(items(top["sequences"], "sequences"), start=1)
        for draft in _molecule(item, f"sequences, entry {number}")
    ]
    chains = group_by_entity(_with_msas(drafts, path, options))
    by_name = {chain.name: chain for chain in chains}
    bonds, pockets, contacts = read_constraints(top.get("constraints", []), by_name)
    templates = read_templates(
        top.get("templates", []), by_name, path.parent, options.allow_outside
    )
    return Complex(
        name=stem(path),
        chains=chains,
        source=path.name,
        bonds=bonds,
        pockets=pockets,
        contacts=contacts,
        templates=templates,
        notes=msa_notes(chains),
    )


def _recognises(file: InputFile) -> bool:
    return file.has_suffix(_SUFFIXES) or _START.match(file.text[:_MAX_START]) is not None


def _read(file: InputFile, options: ReadOptions) -> list[Complex]:
    """The complex. Raises ValueError naming the file and the value."""
    path = file.path
    with reading(str(path)):
        try:
            schema = parse(file.text, (*_REQUIRED, *_OPTIONAL))
            return [complex_of_schema(path, schema, options)]
        except ValueError as error:
            raise ValueError(f"{path}: {_other_program(file.text)}{error}") from error


def _other_program(text: str) -> str:
    """The beginning of the error for an input of another program."""
    for mark, what in _OTHER_PROGRAMS.items():
        if mark in text:
            return f"{what}, which is not supported: "
    return ""


@dataclass(frozen=True, slots=True)
class _Draft:
    """A chain without its MSA, and the `msa` of its entry as written."""

    chain: Chain
    msa: str = ""


def _molecule(item: Node, location: str) -> list[_Draft]:
    """The copies of one entry of `sequences`."""
    key, value = single_entry(item, location, _KINDS)
    location = f"{location} ({key})"
    return (
        _ligand(value, location) if key == "ligand" else _polymer(value, location, _POLYMERS[key])
    )


def _ligand(node: Node, location: str) -> list[_Draft]:
    entry = mapping(node, location, ["id"], ["ccd", "smiles"])
    ccd: tuple[str, ...] = ()
    if "ccd" in entry:
        ccd = tuple(code.upper() for code in strings(entry["ccd"], f"{location}, ccd"))
    smiles = string(entry["smiles"], f"{location}, smiles").strip() if "smiles" in entry else ""
    return [
        _Draft(Chain(name, "ligand", ccd=ccd, smiles=smiles))
        for name in strings(entry["id"], f"{location}, id")
    ]


def _polymer(node: Node, location: str, kind: Kind) -> list[_Draft]:
    entry = mapping(node, location, ["id", "sequence"], ["msa", "modifications", "cyclic"])
    sequence = normalize(string(entry["sequence"], f"{location}, sequence"))
    cyclic = boolean(entry["cyclic"], f"{location}, cyclic") if "cyclic" in entry else False
    modifications = _modifications(entry.get("modifications", []), f"{location}, modifications")
    msa = string(entry["msa"], f"{location}, msa") if "msa" in entry else ""
    if kind != "protein" and msa not in ("", "empty"):
        raise ValueError(f"{location}, msa: only proteins have an alignment, got {describe(msa)}")
    return [
        _Draft(Chain(name, kind, sequence, cyclic=cyclic, modifications=modifications), msa)
        for name in strings(entry["id"], f"{location}, id")
    ]


def _modifications(node: Node, location: str) -> tuple[tuple[int, str], ...]:
    found: dict[int, str] = {}
    for item in items(node, location):
        entry = mapping(item, location, ["position", "ccd"])
        position = positive_integer(entry["position"], f"{location}, position")
        if position in found:
            raise ValueError(f"{location}: two at position {position}")
        found[position] = string(entry["ccd"], f"{location}, ccd").upper()
    return tuple(sorted(found.items()))


def _with_msas(drafts: list[_Draft], path: Path, options: ReadOptions) -> list[Chain]:
    """The chains with the files of their MSAs; equal proteins must share one."""
    chains: list[Chain] = []
    entities: dict[tuple[str, ...], int] = {}
    without_msa = [
        draft.chain.sequence for draft in drafts if draft.chain.kind == "protein" and not draft.msa
    ]
    found: dict[tuple[str, str], Path | None] = {}  # by sequence and `msa` as written
    shared: dict[str, tuple[FileSource | None, bool]] = {}
    for draft in drafts:
        chain = draft.chain
        molecule = (chain.kind, chain.sequence, *chain.ccd, chain.smiles)
        entity = entities.setdefault(molecule, len(entities))
        if chain.kind == "protein":
            key = (chain.sequence, draft.msa)
            if key not in found:
                found[key] = _find_msa(draft, path, options, entity, without_msa)
            chain = replace(chain, msa=found[key], single_sequence=draft.msa == "empty")
            source = (chain.msa, chain.single_sequence)
            if shared.setdefault(chain.sequence, source) != source:
                raise ValueError(
                    f"chain {chain.name}: copies of one protein have different alignments "
                    f"({describe(draft.msa)})"
                )
        chains.append(chain)
    if options.msas is None:
        return chains
    found_chains = options.msas.with_paired(chains)
    return [
        chain if draft.msa else aligned
        for draft, chain, aligned in zip(drafts, chains, found_chains, strict=True)
    ]


def _find_msa(
    draft: _Draft,
    path: Path,
    options: ReadOptions,
    entity: int,
    without_msa: Sequence[str],
) -> Path | None:
    """The file of a protein's MSA, None where there is none; `without_msa` are the sequences of all
    that name none.
    """
    chain = draft.chain
    if draft.msa == "empty":
        return None
    if draft.msa:
        found = existing_file(
            draft.msa,
            f"chain {chain.name}, msa",
            path.parent,
            allow_outside=options.allow_outside,
        )
        if not unpacked_name(found.name).endswith(_ALIGNMENTS):
            raise ValueError(
                f"chain {chain.name}, msa: {describe(draft.msa)} does not end in "
                f"{', '.join(_ALIGNMENTS)} (or .gz or .xz)"
            )
        return found
    msas = options.msas
    if msas is None:
        return None
    # Boltz's server calls alignments <input>_<entity>.csv, ColabFold calls that of a whole complex
    # <input>.a3m.
    name = stem(path)
    return msas.find(chain.sequence, [f"{name}_{entity}"]) or msas.find_record([name], without_msa)


FORMAT = Format("boltz", "Boltz YAML", _recognises, _read, suffixes=_SUFFIXES)
