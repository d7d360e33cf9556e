"""Gene and protein names, and the headers of UniProt's FASTA files that hold them."""

from __future__ import annotations

import re
from typing import NamedTuple

_UNIPROT_HEADER = re.compile(r"\S+ (.*?) (OS=.*)")
_GENE = re.compile(r" GN=(\S+)")


class ProteinNames(NamedTuple):
    """Gene and protein name; empty where unknown."""

    gene: str = ""
    protein: str = ""


def names_in(header: str) -> ProteinNames | None:
    """The names in `sp|P12345|NAME_HUMAN Protein name OS=Homo sapiens OX=9606 GN=GENE PE=1`.

    None for a header of another kind.
    """
    match = _UNIPROT_HEADER.fullmatch(header)
    if match is None:
        return None
    gene = _GENE.search(match[2])
    return ProteinNames(gene[1] if gene else "", match[1])
