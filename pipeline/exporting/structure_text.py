"""Structures of a run as mmCIF text, and the pLDDT of their tokens."""

from __future__ import annotations

import gzip
from pathlib import Path

import gemmi
import numpy as np
from biotite.structure.io.pdbx import BinaryCIFFile, MaskValue
from jaxtyping import Float

from foldcp.files import reading

MARKS = {MaskValue.MISSING: "?", MaskValue.INAPPLICABLE: "."}


def structure_text(path: Path) -> str:
    """The structure in a file of a run (cif.gz, cif or bcif) as mmCIF text.

    Raises ValueError, naming the file, when it is missing or damaged.
    """
    with reading(str(path)):
        if path.suffix == ".bcif":
            return _text_of_binary(path)
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("ascii")


def token_plddt(text: str) -> Float[np.ndarray, " T"]:
    """pLDDT, 0 to 1, of every token: a residue of a polymer, an atom of a ligand.

    It is that of the B-factors, which are 100 times as large, to 0.001.
    """
    block = gemmi.cif.read_string(text).sole_block()
    columns = ["label_asym_id", "label_seq_id", "B_iso_or_equiv"]
    values = []
    previous = None
    for chain, residue, b_factor in block.find("_atom_site.", columns):
        place = (chain, residue)
        if residue == "." or place != previous:
            values.append(float(b_factor))
        previous = place
    return np.array(values) / 100


def _text_of_binary(path: Path) -> str:
    """A BinaryCIF file as text, of the same values."""
    (name, source), *_ = BinaryCIFFile.read(path).items()
    block = gemmi.cif.Block(name)
    for category, columns in source.items():
        loop = block.init_loop(f"_{category}.", list(columns))
        loop.set_all_values([_values(column) for column in columns.values()])
    document = gemmi.cif.Document()
    document.add_copied_block(block)
    return document.as_string()


def _values(column) -> list[str]:  # biotite's columns have no public type
    """The values of a column, quoted where CIF needs it."""
    texts = [gemmi.cif.quote(text) for text in column.as_array(str).tolist()]
    if column.mask is None:
        return texts
    marks = column.mask.array.tolist()
    return [MARKS.get(mark, text) for mark, text in zip(marks, texts, strict=True)]
