"""A complex of two chains, and files for it, for tests of what is planned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gemmi

from foldcp.complex import Chain, Complex

PAIR = Complex(
    "pair",
    (Chain("A", "protein", "MKTAYIA", accession="P1"), Chain("B", "protein", "GSHMW")),
)


def write_template(path: Path, title: str = "") -> Path:
    """A structure of chain A of PAIR."""
    structure = gemmi.Structure()
    model = gemmi.Model(1)
    chain = gemmi.Chain("A")
    for number, letter in enumerate("MKTAYIA", 1):
        residue = gemmi.Residue()
        residue.name = gemmi.expand_one_letter(letter, gemmi.ResidueKind.AA)
        residue.seqid = gemmi.SeqId(str(number))
        for place, name in enumerate(("N", "CA", "C")):
            atom = gemmi.Atom()
            atom.name = name
            atom.element = gemmi.Element(name[0])
            atom.pos = gemmi.Position(number * 4, place * 1.4, 0)
            residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    structure.assign_label_seq_id()
    path.write_text(f"# {title}\n" + structure.make_mmcif_document().as_string())
    return path


def with_msa(path: Path) -> Complex:
    return replace(PAIR, chains=(replace(PAIR.chains[0], msa=path), PAIR.chains[1]))
