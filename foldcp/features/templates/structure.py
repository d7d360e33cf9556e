"""Template structures: the protein chains of an mmCIF or PDB file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import gemmi
import numpy as np
from jaxtyping import Bool, Float, Int

from foldcp.chemistry.vocabulary import TOKEN_IDS, ccd_atoms, standard_residue
from foldcp.features.msa.parse import decode_plain
from foldcp.files import (
    INPUT_ERRORS,
    MAX_BYTES,
    FileSource,
    check_unchanged,
    describe_error,
    read_file,
    unpacked_name,
)

_BONDED = 2.0  # Å, from C to the next N; a peptide bond is 1.33 long
_MAX_GAP = 10_000  # residues
_MAX_COORDINATE = 1e6  # Å
# (CCD code, the residue or None where it is not resolved)
Residues = list[tuple[str, gemmi.Residue | None]]


@dataclass(frozen=True, eq=False)
class TemplateChain:
    """One protein chain, L residues of its entity's sequence; 0 where an atom is not resolved."""

    author: str  # the author's name of the chain (`auth_asym_id`, the letter of a PDB file)
    sequence: str  # one letter a residue, X for those that are not standard
    type: Int[np.ndarray, " L"]  # index in the vocabulary
    # columns: CA -> C, in the plane of N, normal; the unit matrix where frame_mask is 0
    frame_rot: Float[np.ndarray, "L 3 3"]
    frame_t: Float[np.ndarray, "L 3"]  # Å, CA
    frame_mask: Bool[np.ndarray, " L"]
    center: Float[np.ndarray, "L 3"]  # Å, CA
    representative: Float[np.ndarray, "L 3"]  # Å, CB or CA of glycine
    representative_mask: Bool[np.ndarray, " L"]


def read_template(
    path: FileSource, digest: str = "", max_bytes: int = MAX_BYTES
) -> dict[str, TemplateChain]:
    """The protein chains of a file's first model by label.

    The label is `label_asym_id`, or in a PDB file chain name and number (A1). Alternative
    conformations, hydrogens and water are left out. A chain without an entity
    sequence (`_entity_poly_seq`, SEQRES) has that of its residues, and unknown residues where its
    numbering skips some.

    Args:
        path: mmCIF, or PDB if its name ends in .pdb or .ent; gzipped or not.
        digest: SHA-256 that the unpacked content must have; "" is any.
        max_bytes: the most that the file may hold once unpacked.

    Raises:
        ValueError: naming the file: absent, too large, changed, damaged, without proteins, with
            coordinates that contradict the sequence, with an unknown component.
    """
    content = read_file(path, max_bytes)
    check_unchanged(f"template {path}", content, digest)
    try:
        structure = _structure(path, content.data)
        chains = {
            span.subchain_id(): (chain, span)
            for chain in _chains(structure)
            for span in chain.subchains()
        }
        entities = {name: entity for entity in structure.entities for name in entity.subchains}
        proteins = {}
        for label, (chain, span) in chains.items():
            try:
                if residues := _residues(span, entities.get(label)):
                    proteins[label] = _template_chain(chain.name, residues)
            except ValueError as error:
                raise ValueError(f"chain {label}: {error}") from error
    except ValueError as error:
        raise ValueError(f"template {path}: {error}") from error
    except (TypeError, *INPUT_ERRORS) as error:  # gemmi raises them all
        raise ValueError(f"template {path}: {describe_error(error)}") from error
    if not proteins:
        raise ValueError(f"template {path}: it has no protein chains")
    return proteins


def resolve_chain_names(chains: Mapping[str, TemplateChain], names: Sequence[str]) -> list[str]:
    """The labels of chains that are named either all by label or all by the author's name.

    Names that can be read in one way only may be mixed. Raises ValueError for an unknown name, and
    for one that may be the label of one chain and the author's name of another.
    """
    authors: dict[str, list[str]] = {name: [] for name in names}
    for label, chain in chains.items():
        if chain.author in authors:
            authors[chain.author].append(label)
    all_labels = all(name in chains for name in names)
    all_authors = all(authors.values())
    if all_labels and not all_authors:
        return list(names)
    if all_authors and not all_labels and all(len(labels) == 1 for labels in authors.values()):
        return [authors[name][0] for name in names]
    known = ", ".join(
        f"{label} (author's {chain.author})" if chain.author != label else label
        for label, chain in chains.items()
    )
    labels = []
    for name in names:
        if name in chains and (not authors[name] or name in authors[name]):
            labels.append(name)
        elif name not in chains and len(authors[name]) == 1:
            labels += authors[name]
        elif not authors[name]:
            raise ValueError(f"the file has no protein chain {name!r}, only {known}")
        else:
            raise ValueError(f"ambiguous protein chain {name!r}; the file has {known}")
    return labels


def _chains(structure: gemmi.Structure) -> list[gemmi.Chain]:
    """The chains of the first model, without water, hydrogens and alternative conformations."""
    structure.merge_chain_parts()
    for chain in structure[0] if len(structure) else ():
        for residue in chain:
            residue.subchain = residue.subchain or chain.name  # in a file without label_asym_id
    # where the file does not tell polymers from ligands
    structure.add_entity_types(overwrite=False)
    structure.remove_waters()
    structure.remove_hydrogens()
    structure.remove_alternative_conformations()
    structure.remove_empty_chains()
    return list(structure[0]) if len(structure) else []


def _structure(path: FileSource, data: bytes) -> gemmi.Structure:
    data = decode_plain(data)
    if not unpacked_name(path.name).endswith((".pdb", ".ent")):
        document = gemmi.cif.read_string(data)
        if not len(document):
            raise ValueError("it has no data block")
        block = document[0]
        _add_missing_entities(block)
        return gemmi.make_structure_from_block(block)
    structure = gemmi.read_pdb_string(data)
    structure.merge_chain_parts()
    if not len(structure):
        raise ValueError("it has no atoms")
    structure.setup_entities()
    names: dict[str, str] = {}
    for chain in structure[0]:
        number = 0
        for residue in chain:
            if residue.subchain not in names:
                number += 1
                names[residue.subchain] = f"{chain.name}{number}"
            residue.subchain = names[residue.subchain]
    for entity in structure.entities:
        entity.subchains = [names[subchain] for subchain in entity.subchains if subchain in names]
    return gemmi.make_structure_from_block(structure.make_mmcif_document()[0])


def _add_missing_entities(block: gemmi.cif.Block) -> None:
    """Add categories that some programs leave out: entities, and the entity of each chain.

    The atoms tell the entity of a chain, `_entity_poly` which are polymers.
    """
    atoms = block.find("_atom_site.", ["label_asym_id", "label_entity_id"])
    chains = dict.fromkeys((row.str(0), row.str(1)) for row in atoms)
    pairs = [(chain, entity) for chain, entity in chains if chain and entity]
    if not block.find_values("_struct_asym.id"):
        _add_loop(block, "_struct_asym.", ["id", "entity_id"], pairs)
    if not block.find_values("_entity.id"):
        polymers = {row.str(0) for row in block.find("_entity_poly.", ["entity_id"])}
        entities = dict.fromkeys(entity for _, entity in pairs)
        types = [(entity, "polymer" if entity in polymers else "?") for entity in entities]
        _add_loop(block, "_entity.", ["id", "type"], types)


def _add_loop(
    block: gemmi.cif.Block, category: str, tags: list[str], rows: list[tuple[str, str]]
) -> None:
    loop = block.init_loop(category, tags)
    for row in rows:
        loop.add_row([value if value == "?" else gemmi.cif.quote(value) for value in row])


def _residues(span: gemmi.ResidueSpan, entity: gemmi.Entity | None) -> Residues:
    """The residues along a protein's sequence, resolved or not; empty for any other chain."""
    if entity is None or entity.polymer_type == gemmi.PolymerType.Unknown:
        known = entity is not None and entity.entity_type not in (
            gemmi.EntityType.Unknown,
            gemmi.EntityType.Polymer,
        )
        if known or span.check_polymer_type() != gemmi.PolymerType.PeptideL:
            return []
    elif entity.polymer_type != gemmi.PolymerType.PeptideL:
        return []
    if entity is not None and entity.full_sequence:
        return _along_sequence(span, entity)
    polymer = [residue for residue in span if residue.entity_type == gemmi.EntityType.Polymer]
    return _as_numbered(polymer)


def _along_sequence(span: gemmi.ResidueSpan, entity: gemmi.Entity) -> Residues:
    codes = [gemmi.Entity.first_mon(item) for item in entity.full_sequence]
    found = gemmi.align_sequence_to_polymer(
        codes, span, gemmi.PolymerType.PeptideL, gemmi.AlignmentScoring()
    )
    if len(found.match_string) != len(codes):
        raise ValueError("it has residues that are not in its sequence")
    residues: Residues = []
    resolved = 0
    for code, match in zip(codes, found.match_string, strict=True):
        residue = None
        if match == "|":
            residue = span[resolved]
            resolved += 1
            if residue.name != code:
                raise ValueError(
                    f"residue {residue.seqid} is {residue.name}, but {code} in its sequence"
                )
        residues.append((code, residue))
    return residues


def _as_numbered(resolved: list[gemmi.Residue]) -> Residues:
    """The residues, and an unknown one for each number skipped between two without a bond."""
    residues: Residues = []
    for before, residue in zip([None, *resolved], resolved, strict=False):
        if before is not None and not _is_bonded(before, residue):
            step = max(
                1,
                _step(before.seqid.num, residue.seqid.num),
                _step(before.label_seq, residue.label_seq),
            )
            if step > _MAX_GAP:
                raise ValueError(
                    f"{step - 1:,} residues are missing between {before.seqid} and {residue.seqid}"
                )
            residues += [("UNK", None)] * (step - 1)
        residues.append((residue.name, residue))
    return residues


def _step(first: int | None, second: int | None) -> int:
    return second - first if first is not None and second is not None else 1


def _is_bonded(before: gemmi.Residue, after: gemmi.Residue) -> bool:
    """Whether a peptide bond joins two residues, so that none is missing between them."""
    c = before.find_atom("C", "*")
    n = after.find_atom("N", "*")
    return c is not None and n is not None and c.pos.dist(n.pos) < _BONDED


def _template_chain(author: str, residues: Residues) -> TemplateChain:
    types = []
    positions = []
    resolved = []
    for code, residue in residues:
        code, atoms = _atoms(code, residue)
        names = _atoms_of_interest(code, atoms)
        types.append(TOKEN_IDS.get(code, TOKEN_IDS["UNK"]))
        positions.append([atoms.get(name, np.zeros(3)) for name in names])
        resolved.append([name in atoms for name in names])
    exact = np.array(positions, dtype=np.float64)
    if not (np.abs(exact) < _MAX_COORDINATE).all():
        raise ValueError(f"a coordinate is not a number, or exceeds {_MAX_COORDINATE:,.0f} Å")
    n, ca, c, center, representative = exact.astype(np.float32).transpose(1, 0, 2)
    mask = np.array(resolved)
    frame_mask = np.all(mask[:, :3], axis=1)
    return TemplateChain(
        author=author,
        sequence=gemmi.one_letter_code([code for code, _ in residues]),
        type=np.array(types),
        frame_rot=np.where(
            frame_mask[:, None, None], _frames(n, ca, c), np.eye(3, dtype=np.float32)
        ),
        frame_t=np.where(frame_mask[:, None], ca, 0),
        frame_mask=frame_mask,
        center=center,
        representative=representative,
        representative_mask=mask[:, 4],
    )


def _atoms(code: str, residue: gemmi.Residue | None) -> tuple[str, dict[str, np.ndarray]]:
    """The code of a residue and the positions of its resolved atoms by name.

    Selenomethionine is read as methionine; atom names of standard residues are in upper case.
    """
    found = residue or ()  # an unresolved residue has no atoms
    atoms = {atom.name: np.array(atom.pos.tolist()) for atom in found}
    if code == "MSE":
        code = "MET"
        if "SE" in atoms:
            atoms["SD"] = atoms["SE"]
    if code in TOKEN_IDS:
        atoms = {name.upper(): position for name, position in atoms.items()}
    return code, atoms


def _atoms_of_interest(code: str, atoms: Collection[str]) -> tuple[str, ...]:
    """The names of N, CA, C, the centre and the representative atom; "" where there is none."""
    if code not in TOKEN_IDS:  # a modified residue has no frame, and its first atom represents it
        first = _first_atom(code, atoms)
        return ("", "", "", first, first)
    component = standard_residue(code)
    names = component.atom_names
    return (*names[:3], names[component.center], names[component.representative])


def _first_atom(code: str, resolved: Collection[str]) -> str:
    """The first heavy atom of a component; leaving atoms count only if they are resolved."""
    ccd = ccd_atoms(code)
    for name, element, leaving in zip(ccd.names, ccd.elements.tolist(), ccd.leaving, strict=True):
        if element != 1 and (not leaving or name in resolved):
            return name
    raise ValueError(f"CCD component {code!r} has no heavy atoms that stay")


def _frames(
    n: Float[np.ndarray, "L 3"],
    ca: Float[np.ndarray, "L 3"],
    c: Float[np.ndarray, "L 3"],
) -> Float[np.ndarray, "L 3 3"]:
    """Right-handed frames by Gram-Schmidt from CA -> C and CA -> N (AlphaFold 2, algorithm 21)."""
    v1 = c - ca
    v2 = n - ca
    e1 = v1 / (np.linalg.norm(v1, axis=1, keepdims=True) + 1e-10)
    u2 = v2 - e1 * (e1 * v2).sum(axis=1, keepdims=True)
    e2 = u2 / (np.linalg.norm(u2, axis=1, keepdims=True) + 1e-10)
    return np.stack([e1, e2, np.cross(e1, e2)], axis=-1)
