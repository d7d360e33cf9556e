"""Entries of UniProt that the proteins of a structure are."""

from __future__ import annotations

import re
from dataclasses import dataclass

from foldcp.complex import UNIPROT
from foldcp.structure.entities import canonical_sequence, wrap
from foldcp.structure.molecules import Entity, Molecules
from foldcp.structure.tables import INAPPLICABLE, UNKNOWN, Tables

# P12345, its isoform P12345-2, its mature chain P12345-PRO_0000000001, and a range of each.
_NAME = re.compile(rf"({UNIPROT})(-[0-9]+)?([-:]PRO_[0-9]+)?(?::([0-9]{{1,9}})-([0-9]{{1,9}}))?")


@dataclass(frozen=True)
class Reference:
    """An entry, and the residues of it that a chain is; `residues` is None where nothing says it.

    An accession without a range stands for the whole entry, as it does in the readers of tables.
    """

    accession: str
    isoform: str
    residues: tuple[int, int] | None

    @staticmethod
    def parse(name: str, length: int) -> Reference | None:
        """The reference of an accession as an input names it; None for another database's."""
        match = _NAME.fullmatch(name.strip())
        if match is None:
            return None
        accession, isoform, mature, first, last = match.groups()
        residues: tuple[int, int] | None = (1, length)
        if first:
            residues = (int(first), int(last))
        elif mature:
            residues = None
        if residues and residues[1] - residues[0] + 1 != length:
            residues = None
        return Reference(accession, accession + isoform if isoform else "", residues)


def reference_tables(molecules: Molecules) -> Tables:
    """The references of all proteins, for the PDB's programs and for ModelCIF's."""
    found = _references(molecules)
    if not found:
        return {}
    references = list(found)
    begins = [r.residues[0] if r.residues else UNKNOWN for _, r in references]
    ends = [r.residues[1] if r.residues else UNKNOWN for _, r in references]
    entities = [molecules.entities[index] for index, _ in references]
    shared = {
        "db_name": ["UNP" for _ in references],
        "db_code": [reference.accession for _, reference in references],
    }
    accessions = [reference.accession for _, reference in references]
    isoforms = [reference.isoform or INAPPLICABLE for _, reference in references]
    tables: Tables = {
        "struct_ref": {
            "id": list(range(1, len(references) + 1)),
            "entity_id": [entity.number for entity in entities],
            **shared,
            "pdbx_db_accession": accessions,
            "pdbx_db_isoform": isoforms,
            "pdbx_align_begin": begins,
            "pdbx_seq_one_letter_code": [wrap(canonical_sequence(entity)) for entity in entities],
        },
        "ma_target_ref_db_details": {
            "target_entity_id": [entity.number for entity in entities],
            **shared,
            "db_accession": accessions,
            "seq_db_isoform": isoforms,
            "seq_db_align_begin": begins,
            "seq_db_align_end": ends,
        },
    }
    rows = [
        (number, len(molecules.entities[index].names), reference, chain)
        for number, ((index, reference), chains) in enumerate(found.items(), 1)
        if reference.residues
        for chain in chains
    ]
    if rows:
        tables["struct_ref_seq"] = {
            "align_id": list(range(1, len(rows) + 1)),
            "ref_id": [number for number, *_ in rows],
            "pdbx_strand_id": [molecules.chain_names[chain] for *_, chain in rows],
            "seq_align_beg": [1 for _ in rows],
            "seq_align_end": [length for _, length, *_ in rows],
            "pdbx_db_accession": [reference.accession for _, _, reference, _ in rows],
            "db_align_beg": [r.residues[0] for _, _, r, _ in rows if r.residues],
            "db_align_end": [r.residues[1] for _, _, r, _ in rows if r.residues],
        }
    return tables


def has_reference(entity: Entity, molecules: Molecules) -> bool:
    """Whether an entity is an entry of UniProt."""
    return any(index == entity.number - 1 for index, _ in _references(molecules))


def _references(molecules: Molecules) -> dict[tuple[int, Reference], list[int]]:
    """(index of an entity, reference) -> its chains."""
    found: dict[tuple[int, Reference], list[int]] = {}
    for instance in molecules.instances:
        name = molecules.layout.chain_accessions[instance.chain]
        is_protein = molecules.entities[instance.entity].kind == "protein"
        reference = Reference.parse(name, len(instance.residues)) if is_protein else None
        if reference:
            found.setdefault((instance.entity, reference), []).append(instance.chain)
    return found
