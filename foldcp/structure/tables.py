"""Tables of a CIF file before they become text or bytes."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np

from foldcp.printable import printable_ascii

# Characters of a value: CIF 1.1 has lines of 2,048, and that of an atom has its chain's name twice.
MAX_TEXT = 900


class Missing(Enum):
    """What a CIF file has in place of a value."""

    UNKNOWN = "?"
    INAPPLICABLE = "."

    __hash__ = object.__hash__  # that of Enum is slow, and columns have a value for each atom


class Lines(str):
    """ASCII text of several lines, written as it is."""


UNKNOWN = Missing.UNKNOWN
INAPPLICABLE = Missing.INAPPLICABLE

# Every category of a file, in its order, and what it holds.
CATEGORIES = {
    "entry": "name of the complex",
    "audit_conform": "the dictionary, ModelCIF",
    "struct": "title of the complex; weights",
    "chem_comp": "residues and ligands: type, name, formula and weight after the CCD",
    "ma_chem_comp_descriptor": "SMILES strings of the ligands that were given as one (LIG1, ..)",
    "chem_comp_atom": "heavy atoms of each component that are in the model, formal charges",
    "chem_comp_bond": "bonds between them: after the CCD, of a SMILES string as RDKit reads it",
    "entity": "molecules: polymer, branched (glycans) or non-polymer; accessions or names",
    "entity_poly": "sequences, in letters with modified residues by name, and of their parents",
    "entity_poly_seq": "sequences, residue by residue",
    "pdbx_entity_branch": "glycans",
    "pdbx_entity_branch_list": "their sugars",
    "pdbx_entity_branch_link": "the bonds between these",
    "pdbx_entity_nonpoly": "ligands and ions of one component",
    "struct_asym": "copies of the molecules",
    "pdbx_poly_seq_scheme": "numbers of residues in the chains",
    "pdbx_branch_scheme": "numbers of sugars in the chains",
    "pdbx_nonpoly_scheme": "numbers of other ligands in the chains",
    "struct_ref": "entries of UniProt that proteins are",
    "ma_target_ref_db_details": "the same, for ModelCIF",
    "struct_ref_seq": "residues of the entry that each chain is, where the input says it",
    "software": "foldcp and its version, the network and its weights",
    "ma_software_parameter": "seed, sample, precision, ranks and MSA rows",
    "ma_software_group": "these together",
    "ma_data": "the molecules as input, the model as output",
    "ma_data_group": "input and output",
    "ma_target_entity": "molecules that were modelled",
    "ma_target_entity_instance": "their copies",
    "ma_protocol_step": "the one step, from input to output",
    "ma_model_list": "the model",
    "ma_model_group": "its group",
    "ma_model_group_link": "the model in its group",
    "ma_qa_metric": "kinds of confidence",
    "ma_qa_metric_global": "pLDDT, pTM and ipTM of the whole",
    "ma_feature_list": "chains, numbered from 1",
    "ma_entity_instance_feature": "the same by name",
    "ma_qa_metric_local": "pLDDT of each residue of a polymer, 0 to 100",
    "ma_qa_metric_feature": "pTM of each chain; pLDDT of each ligand",
    "ma_qa_metric_feature_pairwise": "ipTM of each directed pair of chains: `interfaces.iptm`",
    "struct_conn": "bonds of the input, those that close cyclic chains, disulfides by their length",
    "struct_conn_type": "kinds of these bonds",
    "atom_type": "elements",
    "atom_site": "atoms: coordinates, 100 pLDDT as B-factor, charges of residues not standard",
}

# Texts and whole numbers, or an array of numbers that are written to 0.001; NaN is unknown.
Column = Sequence[str | int | Missing] | np.ndarray
Table = dict[str, Column]
Tables = dict[str, Table]  # by category


def row(**values: str | int | Missing) -> Table:
    """A table of one row."""
    return {name: [value] for name, value in values.items()}


def plain_text(value: str) -> str:
    """Any text as one line of ASCII, truncated to what fits on a line of a CIF file."""
    line = printable_ascii(value)
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 3] + "..."


def or_unknown(value: str) -> str | Missing:
    """A text, or `UNKNOWN` if it is empty."""
    return value or UNKNOWN
