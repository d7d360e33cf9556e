"""Chai-lab's FASTA: one complex, whose headers read `>protein|name=A`.

The form is that of https://github.com/chaidiscovery/chai-lab: a record is a chain, its kind the
first field of the header and its name the second; ligands are written as SMILES.
"""

from __future__ import annotations

from foldcp.complex import Chain, Complex, Kind
from foldcp.datasets.chains import group_by_entity
from foldcp.datasets.format import FASTA_SUFFIXES, Format, InputFile, ReadOptions
from foldcp.datasets.msas import msa_notes
from foldcp.datasets.parsing.text_files import stem
from foldcp.datasets.parsing.yaml_tree import describe
from foldcp.datasets.sequences import FastaRecord, normalize
from foldcp.files import reading

_POLYMERS: dict[str, Kind] = {"protein": "protein", "dna": "dna", "rna": "rna"}
_KINDS = (*_POLYMERS, "ligand", "glycan")


def _recognises(file: InputFile) -> bool:
    """Whether all headers begin with a kind and a bar, or one of them also says `name=`."""
    headers = [record.header for record in file.fasta]
    with_kind = [header for header in headers if _kind(header) in _KINDS]
    named = any(header.partition("|")[2].strip().startswith("name=") for header in with_kind)
    return bool(with_kind) and (named or len(with_kind) == len(headers))


def _read(file: InputFile, options: ReadOptions) -> list[Complex]:
    """The complex, named after the file.

    Raises ValueError naming the file and the header: another form, a glycan, or a modified residue
    in parentheses or brackets.
    """
    name = stem(file.path)
    records = file.fasta_to_read()
    with reading(str(file.path)):
        try:
            chains = group_by_entity(_chain(record) for record in records)
            if options.msas:
                chains = options.msas.with_msas(chains, [name])
            return [Complex(name, chains, source=file.path.name, notes=msa_notes(chains))]
        except ValueError as error:
            raise ValueError(f"{file.path}: {error}") from error


def _kind(header: str) -> str:
    kind, bar, _ = header.partition("|")
    return kind.strip().lower() if bar else ""


def _chain(record: FastaRecord) -> Chain:
    kind = _kind(record.header)
    name = record.header.partition("|")[2].strip().removeprefix("name=").strip()
    if kind not in _KINDS or not name:
        raise ValueError(
            f"invalid header {describe('>' + record.header)}; expected '>KIND|name=NAME' as in the "
            "rest of the file"
        )
    if kind == "glycan":
        raise ValueError(
            f"chain {name}: glycans are not supported here; list the components and bonds in a "
            "Boltz YAML file"
        )
    if kind == "ligand":
        return Chain(name, "ligand", smiles=record.letters)
    if set(record.letters) & set("()[]"):
        raise ValueError(
            f"chain {name}: modified residues in parentheses or brackets are not supported here; "
            "list them in a Boltz YAML file"
        )
    return Chain(name, _POLYMERS[kind], normalize(record.letters))


FORMAT = Format("chai", "Chai-lab FASTA", _recognises, _read, suffixes=FASTA_SUFFIXES)
