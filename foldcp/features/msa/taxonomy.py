"""Organisms of MSA rows, from the headers of their sequences."""

from __future__ import annotations

import hashlib
import re

from foldcp.features.msa.parse import UNPAIRED

_ID = re.compile(rb"(?<![A-Za-z0-9])(?:OX|TaxID|taxid|tax_id)=([1-9]\d{0,9})(?![0-9A-Za-z])")
# AlphaFold 3's and Protenix's headers: UniRef100_A0A1B2_9606/1-50
_UNIREF = re.compile(rb"UniRef\d+_[^_\s/]+_([1-9]\d{0,9})(?=[/\s]|$)")
# UniProt's names of entries: an accession or up to five characters, _, and those of the organism.
_ENTRY = re.compile(
    rb"(?:(?:sp|tr)\|[A-Z0-9]+(?:[.-]\d+)?\|)?[A-Z0-9]{1,10}_([A-Z0-9]{3,5})(?:/\d+-\d+)?(?=\s|$)"
)
_MNEMONIC_BIT = 1 << 62  # NCBI's ids are far below


def taxonomy_key(header: bytes | str) -> int:
    """The pairing key of a sequence: its organism as its header names it, UNPAIRED if it does not.

    That is the NCBI taxonomy id of `OX=9606`, `TaxID=9606` or `UniRef100_X_9606/1-50`; for a name
    such as `sp|P69905|HBA_HUMAN`, a hash of HUMAN from 2**62 on, which is no such id. An organism
    therefore has another key where its id is written than where its mnemonic is.

    >>> taxonomy_key("sp|P69905|HBA_HUMAN Hemoglobin OS=Homo sapiens OX=9606 GN=HBA1")
    9606
    """
    text = header.encode() if isinstance(header, str) else header
    text = text.strip().removeprefix(b">")
    if match := _UNIREF.match(text) or _ID.search(text):
        return int(match[1])
    match = _ENTRY.match(text)
    if match is None or match[1].isdigit():
        return UNPAIRED
    digest = hashlib.sha256(match[1]).digest()
    return _MNEMONIC_BIT | (int.from_bytes(digest[:8], "big") % _MNEMONIC_BIT)
