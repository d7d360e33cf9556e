"""Boltz's FASTA: one complex, whose headers read `>A|protein|a.a3m`."""

from __future__ import annotations

import string

from foldcp.complex import Complex
from foldcp.datasets.format import FASTA_SUFFIXES, Format, InputFile, ReadOptions
from foldcp.datasets.formats.boltz_yaml import complex_of_schema
from foldcp.datasets.parsing.yaml_tree import Node, describe
from foldcp.datasets.sequences import FastaRecord
from foldcp.files import reading

_KINDS = ("protein", "dna", "rna", "ccd", "smiles")


def _recognises(file: InputFile) -> bool:
    """Whether at least half of the headers have a kind as their second field."""
    found = [_kind(record.header) in _KINDS for record in file.fasta]
    return 2 * sum(found) >= len(found) > 0


def _read(file: InputFile, options: ReadOptions) -> list[Complex]:
    """The complex, named after the file. Raises ValueError naming the file and the value."""
    records = file.fasta_to_read()
    with reading(str(file.path)):
        try:
            schema: Node = {"sequences": [_entry(record) for record in records]}
            return [complex_of_schema(file.path, schema, options)]
        except ValueError as error:
            raise ValueError(f"{file.path}: {error}") from error


def _kind(header: str) -> str:
    """The second field of a header, if the first one is the name of a chain."""
    name, _, rest = header.partition("|")
    if not name or set(name) & set(string.whitespace):
        return ""
    return rest.partition("|")[0].strip().lower()


def _entry(record: FastaRecord) -> Node:
    """A record as the equivalent entry of a YAML's `sequences`."""
    header = record.header
    kind = _kind(header)
    if not kind:
        raise ValueError(
            f"invalid header {describe('>' + header)}; expected '>CHAIN|KIND|MSA' as in the rest "
            "of the file"
        )
    if kind not in _KINDS:
        raise ValueError(
            f"invalid kind {describe(kind)} in the header {describe('>' + header)}; expected one "
            f"of {', '.join(_KINDS)} as in the rest of the file"
        )
    name, _, *rest = header.split("|", 2)
    if kind in ("ccd", "smiles"):
        return {"ligand": {"id": name, kind: record.letters}}
    msa = (rest[0].split() or [""])[0] if rest else ""
    return {kind: {"id": name, "sequence": record.letters, "msa": msa}}


FORMAT = Format("boltz-fasta", "Boltz FASTA", _recognises, _read, suffixes=FASTA_SUFFIXES)
