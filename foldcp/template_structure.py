"""A structure file (mmCIF or PDB) -> the protein chains that a template may use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
from jaxtyping import Bool, Float, Int

from foldcp.chemistry import TOKEN_IDS, ccd_atoms, standard_residue


@dataclass(frozen=True, eq=False)
class TemplateChain:
    """One protein chain over the L residues of its entity's sequence; 0 where an atom is not resolved."""

    sequence: str  # one letter a residue, X for what is not standard
    type: Int[np.ndarray, " L"]  # index in the vocabulary
    frame_rot: Float[np.ndarray, "L 3 3"]  # columns: CA -> C, in the plane of N, normal; 1 where frame_mask is 0
    frame_t: Float[np.ndarray, "L 3"]  # Å, CA
    frame_mask: Bool[np.ndarray, " L"]
    center: Float[np.ndarray, "L 3"]  # Å, CA
    representative: Float[np.ndarray, "L 3"]  # Å, CB or CA of glycine
    representative_mask: Bool[np.ndarray, " L"]


def read_template(path: Path) -> dict[str, TemplateChain]:
    """The protein chains of a file's first model by `label_asym_id` (of a PDB file: chain name and number, A1).

    Alternative conformations, hydrogens and water are left out. Raises ValueError naming the file: unreadable,
    no entity sequences, coordinates that contradict the sequence, an unknown component.
    """
    try:
        structure = gemmi.make_structure_from_block(_block(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"template {path}: {error}") from error
    structure.merge_chain_parts()
    structure.remove_waters()
    structure.remove_hydrogens()
    structure.remove_alternative_conformations()
    structure.remove_empty_chains()
    entities = {name: entity for entity in structure.entities for name in entity.subchains}
    chains = {}
    for span in structure[0].subchains() if len(structure) else ():
        entity = entities.get(span.subchain_id())
        if entity is not None and entity.polymer_type == gemmi.PolymerType.PeptideL:
            if not entity.full_sequence:
                raise ValueError(f"template {path}: it has no entity sequence for chain {span.subchain_id()}")
            try:
                chains[span.subchain_id()] = _chain(span, entity)
            except ValueError as error:
                raise ValueError(f"template {path}, chain {span.subchain_id()}: {error}") from error
    if not chains:
        raise ValueError(f"template {path}: it has no protein chains")
    return chains


def _block(path: Path) -> gemmi.cif.Block:
    suffixes = "".join(path.suffixes).lower()
    if not suffixes.removesuffix(".gz").endswith((".pdb", ".ent")):
        return gemmi.cif.read(str(path))[0]
    structure = gemmi.read_structure(str(path))
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
        entity.subchains = [names[subchain] for subchain in entity.subchains]
    return structure.make_mmcif_document()[0]


def _residues(span: gemmi.ResidueSpan, entity: gemmi.Entity) -> list[tuple[str, gemmi.Residue | None]]:
    """(CCD code, the residue or None where it is not resolved) along the entity's sequence."""
    codes = [gemmi.Entity.first_mon(item) for item in entity.full_sequence]
    found = gemmi.align_sequence_to_polymer(codes, span, entity.polymer_type, gemmi.AlignmentScoring())
    if len(found.match_string) != len(codes):
        raise ValueError("it has residues that its sequence lacks")
    residues, resolved = [], 0
    for code, match in zip(codes, found.match_string, strict=True):
        residue = None
        if match == "|":
            residue = span[resolved]
            resolved += 1
            if residue.name != code:
                raise ValueError(f"residue {residue.name} {residue.seqid} stands where its sequence has {code}")
        residues.append((code, residue))
    return residues


def _chain(span: gemmi.ResidueSpan, entity: gemmi.Entity) -> TemplateChain:
    residues = _residues(span, entity)
    types, names, present = [], [], []
    for code, residue in residues:
        atoms = {atom.name: np.array(atom.pos.tolist()) for atom in residue} if residue is not None else {}
        if code == "MSE":
            code = "MET"
            atoms = {**atoms, "SD": atoms["SE"]} if "SE" in atoms else atoms
        if code in TOKEN_IDS:
            component = standard_residue(code)
            backbone = component.atom_names[:3]
            wanted = (*backbone, component.atom_names[component.center], component.atom_names[component.representative])
            atoms = {name.upper(): position for name, position in atoms.items()}
        else:  # a modified residue has no frame, and its first atom stands for it
            wanted = ("", "", "", *2 * [_first_atom(code, set(atoms))])
        types.append(TOKEN_IDS.get(code, TOKEN_IDS["UNK"]))
        names.append([atoms.get(name, np.zeros(3)) for name in wanted])
        present.append([name in atoms for name in wanted])
    positions, mask = np.array(names, dtype=np.float32), np.array(present)
    frame_mask = np.all(mask[:, :3], axis=1)
    frames = _frames(positions[:, 0], positions[:, 1], positions[:, 2])
    return TemplateChain(
        sequence=gemmi.one_letter_code([code for code, _ in residues]),
        type=np.array(types),
        frame_rot=np.where(frame_mask[:, None, None], frames, np.eye(3, dtype=np.float32)),
        frame_t=np.where(frame_mask[:, None], positions[:, 1], 0),
        frame_mask=frame_mask,
        center=positions[:, 3],
        representative=positions[:, 4],
        representative_mask=mask[:, 4],
    )


def _first_atom(code: str, resolved: set[str]) -> str:
    """The first heavy atom of a component; leaving atoms count only if they are resolved."""
    ccd = ccd_atoms(code)
    for name, element, leaving in zip(ccd.names, ccd.elements.tolist(), ccd.leaving, strict=True):
        if element != 1 and (not leaving or name in resolved):
            return name
    raise ValueError(f"CCD component {code!r} has no heavy atoms that stay")


def _frames(
    n: Float[np.ndarray, "L 3"], ca: Float[np.ndarray, "L 3"], c: Float[np.ndarray, "L 3"]
) -> Float[np.ndarray, "L 3 3"]:
    """Right-handed frames by Gram-Schmidt from CA -> C and CA -> N (AlphaFold 2, algorithm 21)."""
    v1, v2 = c - ca, n - ca
    e1 = v1 / (np.linalg.norm(v1, axis=1, keepdims=True) + 1e-10)
    u2 = v2 - e1 * (e1 * v2).sum(axis=1, keepdims=True)
    e2 = u2 / (np.linalg.norm(u2, axis=1, keepdims=True) + 1e-10)
    return np.stack([e1, e2, np.cross(e1, e2)], axis=-1)
