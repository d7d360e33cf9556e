"""How does a Boltz input (YAML, or FASTA with `>A|protein|a.a3m` headers) become a complex?

The YAML is what boltz 2.2.1 reads (https://github.com/jwohlwend/boltz/blob/v2.2.1/docs/prediction.md) but
for affinity. Keys that are not in it are errors, and so are letters that Boltz would take for unknown residues.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from foldcp.complex import Chain, Complex, Kind
from foldcp.datasets.chains import by_molecule
from foldcp.datasets.fields import Node, fields, file, flag, items, only, parse, text, texts, whole
from foldcp.datasets.hints import read_constraints, read_templates
from foldcp.datasets.msas import SUFFIXES, MsaFolder, msa_comment
from foldcp.datasets.sequences import fasta_records, normalised
from foldcp.datasets.text import stem

_KINDS = ("protein", "dna", "rna", "ligand")
_HEADER = re.compile(r"([^|\s]+)\|(protein|dna|rna|ccd|smiles)(?:\|(\S*))?(?:\s.*)?", re.IGNORECASE)


def boltz_yaml(path: Path, content: str, msas: MsaFolder | None) -> Complex:
    """The complex of a Boltz YAML, named after the file. Raises ValueError naming the file and the value."""
    try:
        return _complex(path, parse(content), msas)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def is_boltz_fasta(content: str) -> bool:
    """Whether a header of a FASTA text has the form `>A|protein|...`."""
    return any(_HEADER.fullmatch(line[1:].strip()) for line in content.splitlines() if line.startswith(">"))


def boltz_fasta(path: Path, content: str, msas: MsaFolder | None) -> Complex:
    """The complex of a FASTA file whose headers say chain, kind and alignment. Raises ValueError as above."""
    records = fasta_records(path, content)
    try:
        return _complex(path, {"sequences": [_entry(header, body) for header, body in records]}, msas)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _entry(header: str, body: str) -> Node:
    """The entry of `sequences` that a FASTA record stands for."""
    match = _HEADER.fullmatch(header)
    if match is None:
        raise ValueError(f"the header '>{header}' has not the form '>CHAIN|KIND|MSA' of the file's other headers")
    name, kind, msa = match[1], match[2].lower(), match[3] or ""
    if kind in ("ccd", "smiles"):
        return {"ligand": {"id": name, kind: body}}
    return {kind: {"id": name, "sequence": body, "msa": msa}}


def _complex(path: Path, schema: Node, msas: MsaFolder | None) -> Complex:
    top = fields(schema, "the file", ["sequences"], ["version", "constraints", "templates", "properties"])
    if (version := top.get("version", "1")) != "1":
        raise ValueError(f"version {version!r}, but 1 is the only one")
    if top.get("properties"):
        raise ValueError("properties: affinity is not supported yet")
    drafts = [
        draft
        for number, item in enumerate(items(top["sequences"], "sequences"), start=1)
        for draft in _molecule(item, f"sequences, entry {number}")
    ]
    chains = by_molecule(_aligned(drafts, path, msas))
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
        comment=msa_comment(chains),
    )


def _molecule(item: Node, where: str) -> list[tuple[Chain, str]]:
    """The copies of one entry of `sequences`, each with its `msa` as written."""
    key, value = only(item, where, _KINDS)
    where = f"{where} ({key})"
    if key == "ligand":
        given = fields(value, where, ["id"], ["ccd", "smiles"])
        ccd = tuple(code.upper() for code in texts(given["ccd"], f"{where}, ccd")) if "ccd" in given else ()
        smiles = text(given["smiles"], f"{where}, smiles").strip() if "smiles" in given else ""
        return [(Chain(name, "ligand", ccd=ccd, smiles=smiles), "") for name in texts(given["id"], f"{where}, id")]
    kind: Kind = "protein" if key == "protein" else "dna" if key == "dna" else "rna"
    given = fields(value, where, ["id", "sequence"], ["msa", "modifications", "cyclic"])
    sequence = normalised(text(given["sequence"], f"{where}, sequence"))
    cyclic = flag(given["cyclic"], f"{where}, cyclic") if "cyclic" in given else False
    modifications = _modifications(given.get("modifications", []), f"{where}, modifications")
    msa = text(given["msa"], f"{where}, msa") if "msa" in given else ""
    if kind != "protein" and msa not in ("", "empty"):
        raise ValueError(f"{where}, msa: only a protein has an alignment, found {msa!r}")
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
    written: dict[str, str] = {}
    for chain, msa in drafts:
        entity = entities.setdefault((chain.kind, chain.sequence, *chain.ccd, chain.smiles), len(entities))
        if chain.kind == "protein":
            if written.setdefault(chain.sequence, msa) != msa:
                raise ValueError(f"chain {chain.name}: copies of one protein have different alignments ({msa!r})")
            # Boltz's server alignments are called <input>_<entity>.csv.
            chain = replace(chain, msa=_alignment(chain, msa, path, msas, f"{stem(path)}_{entity}"))
        chains.append(chain)
    return chains


def _alignment(chain: Chain, msa: str, path: Path, msas: MsaFolder | None, name: str) -> Path | None:
    if msa == "empty":
        return None
    if msa:
        found = file(msa, f"chain {chain.name}, msa", path.parent)
        if not found.name.endswith(SUFFIXES):
            raise ValueError(f"chain {chain.name}, msa: {msa!r} ends in none of {', '.join(SUFFIXES)}")
        return found
    if found := msas.find(chain.sequence, [name]) if msas else None:
        return found
    looked = f"there is no alignment of it in {msas.path}; " if msas else ""
    raise ValueError(
        f"chain {chain.name} has no msa: {looked}give a file (`msa: {chain.name}.a3m`) or a folder of them "
        "(--msas DIR), or fold it from its sequence alone, less well (`msa: empty`)"
    )
