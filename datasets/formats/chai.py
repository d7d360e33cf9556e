"""The complex of a Chai-lab FASTA file, whose headers read `>protein|name=A`.

The form is that of https://github.com/chaidiscovery/chai-lab: a record is a chain, its kind the
first field of the header and its name the second; ligands are written as SMILES.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from foldcp.complex import Chain, Complex
from foldcp.datasets.chains import group_by_entity
from foldcp.datasets.msas import MsaFolder, msa_notes
from foldcp.datasets.parsing.text_files import stem
from foldcp.datasets.parsing.yaml_tree import shown
from foldcp.datasets.sequences import normalised
from foldcp.files import reading

_KINDS = ("protein", "dna", "rna", "ligand", "glycan")


def is_chai_fasta(headers: Collection[str]) -> bool:
    """Whether all headers begin with a kind and a bar, or one of them also says `name=`."""
    kinds = [header for header in headers if _kind(header) in _KINDS]
    named = any(header.partition("|")[2].strip().startswith("name=") for header in kinds)
    return bool(kinds) and (named or len(kinds) == len(headers))


def chai_fasta(path: Path, records: Iterable[tuple[str, str]], msas: MsaFolder | None) -> Complex:
    """The complex of a file's (header, letters), named after the file, each protein's alignment one
    of `msas`.

    Raises ValueError naming the file and the header: another form, a glycan, or a modified residue
    in brackets.
    """
    with reading(str(path)):
        try:
            chains = group_by_entity([_chain(header, body) for header, body in records])
            if msas:
                chains = msas.aligned(chains, [stem(path)])
            return Complex(stem(path), chains, source=path.name, notes=msa_notes(chains))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _kind(header: str) -> str:
    kind, bar, _ = header.partition("|")
    return kind.strip().lower() if bar else ""


def _chain(header: str, body: str) -> Chain:
    kind = _kind(header)
    name = header.partition("|")[2].strip().removeprefix("name=").strip()
    if kind not in _KINDS or not name:
        raise ValueError(
            f"the header {shown('>' + header)} has not the form '>KIND|name=NAME' of the "
            "file's others"
        )
    if kind == "glycan":
        raise ValueError(
            f"chain {name}: a glycan is not read; a Boltz YAML file can list its "
            "components and bonds"
        )
    if kind == "ligand":
        return Chain(name, "ligand", smiles=body)
    if set(body) & set("()[]"):
        raise ValueError(
            f"chain {name}: modified residues in brackets are not read; a Boltz YAML file "
            "can list them"
        )
    return Chain(
        name,
        "protein" if kind == "protein" else "dna" if kind == "dna" else "rna",
        normalised(body),
    )
