"""Entities, their sequences and branches, and the instances of each."""

from __future__ import annotations

from foldcp.structure.components import component_name, is_standard, parent_letter
from foldcp.structure.molecules import POLYMER_TYPES, Entity, Instance, Molecules
from foldcp.structure.tables import MAX_TEXT, UNKNOWN, Lines, Table, Tables

SEQUENCE_LINE = 80  # characters
WORDS = {"protein": "protein", "dna": "DNA", "rna": "RNA"}


def entity_tables(molecules: Molecules) -> Tables:
    """Every category about entities and their instances."""
    entities = molecules.entities
    polymers = [entity for entity in entities if entity.type == "polymer"]
    branched = [entity for entity in entities if entity.type == "branched"]
    others = [entity for entity in entities if entity.type == "non-polymer"]
    tables: Tables = {
        "entity": {
            "id": [entity.number for entity in entities],
            "type": [entity.type for entity in entities],
            "src_method": ["man" if entity.type == "polymer" else "syn" for entity in entities],
            "pdbx_description": [description(entity, molecules) for entity in entities],
            "pdbx_number_of_molecules": [len(entity.instances) for entity in entities],
        },
    }
    if polymers:
        tables["entity_poly"] = _polymers(polymers, molecules)
        tables["entity_poly_seq"] = {
            **_residues_of(polymers),
            "hetero": ["n" for entity in polymers for _ in entity.names],
        }
    if branched:
        tables |= _branches(branched, molecules)
    if others:
        tables["pdbx_entity_nonpoly"] = {
            "entity_id": [entity.number for entity in others],
            "name": [description(entity, molecules) for entity in others],
            "comp_id": [entity.names[0] for entity in others],
            "ma_model_mode": ["explicit" for _ in others],
        }
    tables["struct_asym"] = {
        "id": [instance.label for instance in molecules.instances],
        "entity_id": [instance.entity + 1 for instance in molecules.instances],
        "details": [UNKNOWN for _ in molecules.instances],
    }
    return tables | _schemes(molecules)


def description(entity: Entity, molecules: Molecules) -> str:
    """A polymer's accessions, a ligand's name in the CCD or its SMILES string."""
    layout = molecules.layout
    chains = [instance.chain for instance in entity.instances]
    if entity.type == "branched":
        return "oligosaccharide " + "-".join(entity.names)
    if entity.type == "non-polymer":
        return layout.chain_smiles[chains[0]] or component_name(entity.names[0]) or entity.names[0]
    names = dict.fromkeys(layout.chain_accessions[chain] for chain in chains)
    accessions = ", ".join(name for name in names if name)
    return accessions or f"{WORDS[entity.kind]} {molecules.chain_names[chains[0]]}"


def canonical_sequence(entity: Entity) -> str:
    """A polymer in one-letter codes, for modified residues those of their parents."""
    return "".join(parent_letter(name) for name in entity.names)


def _exact_sequence(entity: Entity) -> str:
    """A polymer in one-letter codes, with the names of modified residues in parentheses."""
    letters = []
    for name in entity.names:
        is_spelled = entity.kind == "dna" or name == "UNK" or not is_standard(name)
        letters.append(f"({name})" if is_spelled else parent_letter(name))
    return "".join(letters)


def wrap(sequence: str) -> Lines:
    """A sequence in lines."""
    starts = range(0, len(sequence), SEQUENCE_LINE)
    return Lines("\n".join(sequence[start : start + SEQUENCE_LINE] for start in starts))


def _polymers(polymers: list[Entity], molecules: Molecules) -> Table:
    """The sequence of each polymer."""
    is_modified = [not all(map(is_standard, entity.names)) for entity in polymers]
    return {
        "entity_id": [entity.number for entity in polymers],
        "type": [POLYMER_TYPES[entity.kind] for entity in polymers],
        "nstd_linkage": ["no" for _ in polymers],
        "nstd_monomer": ["yes" if modified else "no" for modified in is_modified],
        "pdbx_seq_one_letter_code": [wrap(_exact_sequence(entity)) for entity in polymers],
        "pdbx_seq_one_letter_code_can": [wrap(canonical_sequence(entity)) for entity in polymers],
        "pdbx_strand_id": [_strands(entity, molecules) for entity in polymers],
    }


def _strands(entity: Entity, molecules: Molecules) -> Lines:
    """The names of an entity's chains, over several lines when that is long."""
    names = [molecules.chain_names[instance.chain] for instance in entity.instances]
    text = ",".join(names)
    return Lines(text if len(text) <= MAX_TEXT else ",\n".join(names))


def _residues_of(entities: list[Entity]) -> Table:
    """Every residue of every entity."""
    return {
        "entity_id": [entity.number for entity in entities for _ in entity.names],
        "num": [number for entity in entities for number, _ in enumerate(entity.names, 1)],
        "mon_id": [name for entity in entities for name in entity.names],
    }


def _branches(branched: list[Entity], molecules: Molecules) -> Tables:
    """Oligosaccharides: their components, and the bonds between these in the first copy."""
    residues = _residues_of(branched)
    tables: Tables = {
        "pdbx_entity_branch": {
            "entity_id": [entity.number for entity in branched],
            "type": ["oligosaccharide" for _ in branched],
        },
        "pdbx_entity_branch_list": {
            "entity_id": residues["entity_id"],
            "num": residues["num"],
            "comp_id": residues["mon_id"],
            "hetero": ["n" for _ in residues["num"]],
        },
    }
    links = [link for entity in branched for link in _links(entity, molecules)]
    if links:
        tables["pdbx_entity_branch_link"] = {
            "link_id": list(range(1, len(links) + 1)),
            "entity_id": [entity.number for entity, *_ in links],
            "entity_branch_list_num_1": [first for _, first, *_ in links],
            "comp_id_1": [entity.names[first - 1] for entity, first, *_ in links],
            "atom_id_1": [atom for _, _, atom, *_ in links],
            "leaving_atom_id_1": [UNKNOWN for _ in links],
            "entity_branch_list_num_2": [second for _, _, _, second, _ in links],
            "comp_id_2": [entity.names[second - 1] for entity, _, _, second, _ in links],
            "atom_id_2": [atom for *_, atom in links],
            "leaving_atom_id_2": [UNKNOWN for _ in links],
            "value_order": ["sing" for _ in links],
        }
    return tables


def _links(entity: Entity, molecules: Molecules) -> list[tuple[Entity, int, str, int, str]]:
    """(entity, component from 1, its atom, component, its atom) of each bond between components."""
    layout = molecules.layout
    residues = entity.instances[0].residues
    links = []
    for pair in layout.covalent.tolist():
        first, second = (int(molecules.residue_of_atom[atom]) for atom in pair)
        if first in residues and second in residues:
            numbers = [residue - residues.start + 1 for residue in (first, second)]
            atoms = [layout.atom_name[atom] for atom in pair]
            links.append((entity, numbers[0], atoms[0], numbers[1], atoms[1]))
    return links


def _schemes(molecules: Molecules) -> Tables:
    """How instances, their residues and the numbers of these in each chain belong together."""

    def residues_of(type: str) -> tuple[list[Instance], list[int]]:
        residues = [
            (instance, residue)
            for instance in molecules.instances
            if molecules.entities[instance.entity].type == type
            for residue in instance.residues
        ]
        return [instance for instance, _ in residues], [residue for _, residue in residues]

    schemes = {
        "polymer": ("pdbx_poly_seq_scheme", "seq_id", "pdb_strand_id"),
        "branched": ("pdbx_branch_scheme", "num", "pdb_asym_id"),
        "non-polymer": ("pdbx_nonpoly_scheme", "ndb_seq_num", "pdb_strand_id"),
    }
    tables: Tables = {}
    for type, (category, position, chain) in schemes.items():
        instances, residues = residues_of(type)
        if not residues:
            continue
        names = [molecules.residue_name[residue] for residue in residues]
        numbers = [molecules.residue_number[residue] for residue in residues]
        tables[category] = {
            "asym_id": [instance.label for instance in instances],
            "entity_id": [instance.entity + 1 for instance in instances],
            "mon_id": names,
            position: [1] * len(names) if type == "non-polymer" else numbers,
            "pdb_seq_num": numbers,
            "auth_seq_num": numbers,
            "pdb_mon_id": names,
            "auth_mon_id": names,
            chain: [molecules.chain_names[instance.chain] for instance in instances],
        }
        if type == "branched":
            tables[category]["hetero"] = ["n"] * len(names)
        else:
            tables[category]["pdb_ins_code"] = [UNKNOWN] * len(names)
    return tables
