"""The complex of a Boltz input: YAML, or FASTA with `>A|protein|a.a3m` headers.

The YAML is what boltz 2.2.1 reads
(https://github.com/jwohlwend/boltz/blob/v2.2.1/docs/prediction.md) but for affinity. Keys that are
not in it are errors, and so are letters that Boltz would take for unknown residues.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from foldcp.complex import Chain, Complex, Kind
from foldcp.datasets.chains import group_by_entity
from foldcp.datasets.formats.boltz_constraints import read_constraints, read_templates
from foldcp.datasets.msas import SUFFIXES, MsaFolder, msa_notes
from foldcp.datasets.parsing.strict_yaml import fields, file, flag, items, only, text, texts, whole
from foldcp.datasets.parsing.text_files import stem
from foldcp.datasets.parsing.yaml_tree import Node, parse, shown
from foldcp.datasets.sequences import normalised
from foldcp.files import reading

_KINDS = ("protein", "dna", "rna", "ligand")
_FASTA_KINDS = ("protein", "dna", "rna", "ccd", "smiles")
_REQUIRED = ("sequences",)
_OPTIONAL = ("version", "constraints", "templates", "properties")
# What the inputs of other programs hold and Boltz's never does.
_OTHERS = {
    '"modelSeeds"': "an input of AlphaFold 3 or its server",
    '"proteinChain"': "an input of AlphaFold's server or Protenix",
    "entities:": "a design of BoltzGen",
}


def boltz_yaml(path: Path, content: str, msas: MsaFolder | None) -> Complex:
    """The complex of a Boltz YAML, named after the file. Raises ValueError naming the file and
    the value.
    """
    with reading(str(path)):
        try:
            return _complex(path, parse(content, (*_REQUIRED, *_OPTIONAL)), msas)
        except ValueError as error:
            other = next(
                (
                    f"{what}, which is not read: "
                    for mark, what in _OTHERS.items()
                    if mark in content
                ),
                "",
            )
            raise ValueError(f"{path}: {other}{error}") from error


def is_boltz_fasta(headers: Iterable[str]) -> bool:
    """Whether most headers of a FASTA text have the form `>A|protein|...`: the second field is a
    kind and nothing else.
    """
    found = [_kind(header) in _FASTA_KINDS for header in headers]
    return 2 * sum(found) >= len(found) > 0


def boltz_fasta(path: Path, records: Iterable[tuple[str, str]], msas: MsaFolder | None) -> Complex:
    """The complex of a FASTA file's (header, letters); the headers say chain, kind and
    alignment. Raises as above.
    """
    with reading(str(path)):
        try:
            return _complex(
                path,
                {"sequences": [_entry(header, body) for header, body in records]},
                msas,
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _kind(header: str) -> str:
    """The second field of a header, if the first one is the name of a chain."""
    name, _, rest = header.partition("|")
    return (
        rest.partition("|")[0].strip().lower()
        if name and not set(name) & set(string.whitespace)
        else ""
    )


def _entry(header: str, body: str) -> Node:
    """The entry of `sequences` that a FASTA record stands for."""
    kind = _kind(header)
    if not kind:
        raise ValueError(
            f"the header {shown('>' + header)} has not the form '>CHAIN|KIND|MSA' of the "
            "file's others"
        )
    if kind not in _FASTA_KINDS:
        raise ValueError(
            f"the header {shown('>' + header)}: its kind {shown(kind)} is none of "
            f"{', '.join(_FASTA_KINDS)}, "
            "but others in the file are"
        )
    name, _, *rest = header.split("|", 2)
    if kind in ("ccd", "smiles"):
        return {"ligand": {"id": name, kind: body}}
    msa = (rest[0].split() or [""])[0] if rest else ""
    return {kind: {"id": name, "sequence": body, "msa": msa}}


def _complex(path: Path, schema: Node, msas: MsaFolder | None) -> Complex:
    top = fields(schema, "the file", _REQUIRED, _OPTIONAL)
    if (version := top.get("version", "1")) != "1":
        raise ValueError(f"version {shown(version)}, but 1 is the only one")
    if top.get("properties"):
        raise ValueError("properties: affinity is not supported yet")
    drafts = [
        draft
        for number, item in enumerate(items(top["sequences"], "sequences"), start=1)
        for draft in _molecule(item, f"sequences, entry {number}")
    ]
    chains = group_by_entity(_aligned(drafts, path, msas))
    by_name = {chain.name: chain for chain in chains}
    bonds, pockets, contacts = read_constraints(top.get("constraints", []), by_name)
    return Complex(
        name=stem(path),
        chains=chains,
        source=path.name,
        bonds=bonds,
        pockets=pockets,
        contacts=contacts,
        templates=read_templates(top.get("templates", []), by_name, path.parent),
        notes=msa_notes(chains),
    )


def _molecule(item: Node, where: str) -> list[tuple[Chain, str]]:
    """The copies of one entry of `sequences`, each with its `msa` as written."""
    key, value = only(item, where, _KINDS)
    where = f"{where} ({key})"
    if key == "ligand":
        given = fields(value, where, ["id"], ["ccd", "smiles"])
        ccd = (
            tuple(code.upper() for code in texts(given["ccd"], f"{where}, ccd"))
            if "ccd" in given
            else ()
        )
        smiles = text(given["smiles"], f"{where}, smiles").strip() if "smiles" in given else ""
        return [
            (Chain(name, "ligand", ccd=ccd, smiles=smiles), "")
            for name in texts(given["id"], f"{where}, id")
        ]
    kind: Kind = "protein" if key == "protein" else "dna" if key == "dna" else "rna"
    given = fields(value, where, ["id", "sequence"], ["msa", "modifications", "cyclic"])
    sequence = normalised(text(given["sequence"], f"{where}, sequence"))
    cyclic = flag(given["cyclic"], f"{where}, cyclic") if "cyclic" in given else False
    modifications = _modifications(given.get("modifications", []), f"{where}, modifications")
    msa = text(given["msa"], f"{where}, msa") if "msa" in given else ""
    if kind != "protein" and msa not in ("", "empty"):
        raise ValueError(f"{where}, msa: only a protein has an alignment, found {shown(msa)}")
    return [
        (Chain(name, kind, sequence, cyclic=cyclic, modifications=modifications), msa)
        for name in texts(given["id"], f"{where}, id")
    ]


def _modifications(node: Node, where: str) -> tuple[tuple[int, str], ...]:
    found: dict[int, str] = {}
    for item in items(node, where):
        given = fields(item, where, ["position", "ccd"])
        position = whole(given["position"], f"{where}, position")
        if position in found:
            raise ValueError(f"{where}: two at position {position}")
        found[position] = text(given["ccd"], f"{where}, ccd").upper()
    return tuple(sorted(found.items()))


def _aligned(drafts: list[tuple[Chain, str]], path: Path, msas: MsaFolder | None) -> list[Chain]:
    """The chains with the files of their alignments; equal proteins must share one."""
    chains: list[Chain] = []
    entities: dict[tuple[str, ...], int] = {}
    proteins = [chain.sequence for chain, msa in drafts if chain.kind == "protein" and not msa]
    found: dict[tuple[str, str], Path | None] = {}  # by sequence and `msa` as written
    shared: dict[str, Path | None] = {}
    for chain, msa in drafts:
        entity = entities.setdefault(
            (chain.kind, chain.sequence, *chain.ccd, chain.smiles), len(entities)
        )
        if chain.kind == "protein":
            asked = (chain.sequence, msa)
            if asked not in found:
                found[asked] = _alignment(chain, msa, path, msas, entity, proteins)
            if shared.setdefault(chain.sequence, found[asked]) != found[asked]:
                raise ValueError(
                    f"chain {chain.name}: copies of one protein have different alignments "
                    f"({shown(msa)})"
                )
            chain = replace(chain, msa=found[asked])
        chains.append(chain)
    return chains


def _alignment(
    chain: Chain,
    msa: str,
    path: Path,
    msas: MsaFolder | None,
    entity: int,
    proteins: Sequence[str],
) -> Path | None:
    """The file of a protein's alignment; `proteins` are the sequences of all that name none."""
    if msa == "empty":
        return None
    if msa:
        found = file(msa, f"chain {chain.name}, msa", path.parent)
        if not found.name.endswith(SUFFIXES):
            raise ValueError(
                f"chain {chain.name}, msa: {shown(msa)} ends in none of {', '.join(SUFFIXES)}"
            )
        return found
    if msas:
        # Boltz's server alignments are called <input>_<entity>.csv, ColabFold's of a whole complex
        # <input>.a3m.
        name = stem(path)
        found = msas.find(chain.sequence, [f"{name}_{entity}"]) or msas.of_record([name], proteins)
        if found:
            return found
    looked = f"there is no alignment of it in {msas.path}; " if msas else ""
    raise ValueError(
        f"chain {chain.name} has no msa: {looked}give a file (`msa: {chain.name}.a3m`) or a "
        "folder of them "
        "(--msas DIR), or fold it from its sequence alone, less well (`msa: empty`)"
    )
