"""Reading of experimental structures to train on: mmCIF files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import gemmi
import numpy as np
from jaxtyping import Float

from foldcp.complex import ALPHABETS, Kind
from foldcp.features.msa.parse import decode_plain
from foldcp.files import INPUT_ERRORS, FileContent, describe_error, read_file
from foldcp.training.data.structure import (
    BondEnd,
    ExperimentalChain,
    ExperimentalStructure,
)

MAX_COORDINATE = 1e6  # Å
# Two consecutive residues whose atoms are all further apart than this are not bonded.
MAX_BOND = 2.3  # Å
# The most residues that are put in where the numbers of observed residues leave a gap: the network
# does not tell longer distances along a chain apart (Boltz: `r_max` 32).
MAX_GAP = 33
_UNKNOWN = {"protein": "UNK", "dna": "DN", "rna": "N"}
UNKNOWN_LETTERS = {"protein": "X", "dna": "N", "rna": "N"}
_KINDS: dict[gemmi.PolymerType, Kind] = {
    gemmi.PolymerType.PeptideL: "protein",
    gemmi.PolymerType.PeptideD: "protein",
    gemmi.PolymerType.CyclicPseudoPeptide: "protein",
    gemmi.PolymerType.Dna: "dna",
    gemmi.PolymerType.Rna: "rna",
}
_DATES = (
    "_pdbx_audit_revision_history.revision_date",
    "_pdbx_database_status.recvd_initial_deposition_date",
)
_BFACTORS = "_atom_site.B_iso_or_equiv"
_ABSENT = (".", "?")
_RESOLUTIONS = (
    "_refine.ls_d_res_high",
    "_em_3d_reconstruction.resolution",
    "_reflns.d_resolution_high",
)


@dataclass(frozen=True)
class _Copy:
    """A subchain of the file as the assembly places it."""

    name: str  # of the copy
    subchain: str
    placement: int  # number of the operator that places it
    transform: gemmi.Transform


@dataclass(frozen=True)
class _Subchain:
    """A chain with its coordinates in float64, and the place of each of its residues."""

    chain: ExperimentalChain
    places: Mapping[str, int]  # by the author's number and insertion code


def read_experimental(
    path: Path, name: str, *, assembly: bool = True, content: FileContent | None = None
) -> ExperimentalStructure:
    """The first biological assembly of an mmCIF file, or its asymmetric unit where it has none or
    none is asked for: of the first model, without water and hydrogens.

    Of alternative positions of an atom, and of alternative components of a residue, it has the one
    of the largest occupancy, of equal ones the first. The sequence of a polymer is that of its
    entity; without one, it is that of the residues seen, with unknown ones put in where their
    numbers leave a gap and they are not bonded. Chains without an observed atom are left out.

    `content` is that of the file, where it has been read already. Raises ValueError naming the
    file: absent, damaged, without atoms.
    """
    content = content or read_file(path)
    try:
        document = gemmi.cif.read_string(decode_plain(content.data))
        if not len(document):
            raise ValueError("it has no data block")
        return _structure(document[0], name, assembly)
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    except (TypeError, *INPUT_ERRORS) as error:  # gemmi raises them all
        raise ValueError(f"{path}: {describe_error(error)}") from error


def _structure(block: gemmi.cif.Block, name: str, assembly: bool) -> ExperimentalStructure:
    structure = gemmi.make_structure_from_block(block)
    if not len(structure) or not structure[0].count_atom_sites():
        raise ValueError("it has no atoms")
    structure.setup_entities()
    model = structure[0]
    subchains = {span.subchain_id(): span for span in model.subchains() if len(span)}
    entities = {subchain: entity for entity in structure.entities for subchain in entity.subchains}
    chains = {}
    for subchain, span in subchains.items():
        found = _chain(subchain, span, entities.get(subchain))
        if found is not None:
            chains[subchain] = found
    if not chains:
        raise ValueError("it has no heavy atoms but those of water")
    placed_as = structure.assemblies[0] if assembly and structure.assemblies else None
    has_bfactors = any(value not in _ABSENT for value in block.find_values(_BFACTORS))
    copies = list(_copies(placed_as, list(chains), model))
    if not copies:
        raise ValueError(f"assembly {structure.assemblies[0].name} has none of the file's chains")
    return ExperimentalStructure(
        name=name,
        chains=tuple(_placed(chains[copy.subchain].chain, copy, has_bfactors) for copy in copies),
        bonds=tuple(_bonds(structure, chains, copies)),
        resolution=_resolution(block),
        date=_first(block, _DATES, re.compile(r"\d{4}-\d\d-\d\d").fullmatch),
        method=gemmi.cif.as_string(block.find_value("_exptl.method") or "").lower(),
        assembly=placed_as.name if placed_as is not None else "",
    )


def _first(block: gemmi.cif.Block, tags: Sequence[str], is_valid: Callable[[str], object]) -> str:
    """The first valid value of the first of these tags that has one."""
    for tag in tags:
        for value in block.find_values(tag):
            text = gemmi.cif.as_string(value)
            if is_valid(text):
                return text
    return ""


def _resolution(block: gemmi.cif.Block) -> float | None:
    """The resolution in Å."""
    text = _first(block, _RESOLUTIONS, re.compile(r"\d+(\.\d*)?").fullmatch)
    return float(text) if text and float(text) > 0 else None


def _copies(
    assembly: gemmi.Assembly | None, subchains: Sequence[str], model: gemmi.Model
) -> Iterator[_Copy]:
    """The subchains as an assembly places them, or as they are.

    The first copy of a subchain has its name, the next ones `name-2`, `name-3` ..
    """
    if assembly is None:
        for subchain in subchains:
            yield _Copy(subchain, subchain, 0, gemmi.Transform())
        return
    numbers = {subchain: count(1) for subchain in subchains}
    placements = count()
    of_author = {chain.name: {residue.subchain for residue in chain} for chain in model}
    for generator in assembly.generators:
        named = set(generator.subchains)
        for author in generator.chains:
            named |= of_author.get(author, set())
        for operator in generator.operators:
            placement = next(placements)
            for subchain in subchains:
                if subchain in named:
                    number = next(numbers[subchain])
                    name = subchain if number == 1 else f"{subchain}-{number}"
                    yield _Copy(name, subchain, placement, operator.transform)


def _placed(chain: ExperimentalChain, copy: _Copy, has_bfactors: bool) -> ExperimentalChain:
    """A chain where the assembly places it; its B-factors are 0 if the file has none."""
    coords = chain.coords
    if not copy.transform.is_identity():
        matrix = np.array(copy.transform.mat.tolist())
        coords = coords @ matrix.T + np.array(copy.transform.vec.tolist())
    if not (np.abs(coords) < MAX_COORDINATE).all():
        raise ValueError(f"a coordinate is not a number, or exceeds {MAX_COORDINATE:,.0f} Å")
    bfactors = np.nan_to_num(chain.bfactors, posinf=0, neginf=0)
    return ExperimentalChain(
        name=copy.name,
        kind=chain.kind,
        codes=chain.codes,
        letters=chain.letters,
        atom_residue=chain.atom_residue,
        atom_names=chain.atom_names,
        coords=coords.astype(np.float32),
        bfactors=bfactors if has_bfactors else np.zeros_like(bfactors),
    )


def _chain(name: str, span: gemmi.ResidueSpan, entity: gemmi.Entity | None) -> _Subchain | None:
    """A subchain; None for water, or without heavy atoms."""
    residues = [list(group) for group in _same_place(span)]
    chosen = [_most_occupied(group) for group in residues]
    atoms = [_atoms(residue) for residue in chosen]
    seen = [
        (residue, found)
        for residue, found in zip(chosen, atoms, strict=True)
        if found and not residue.is_water()
    ]
    if not seen:
        return None
    chosen = [residue for residue, _ in seen]
    atoms = [found for _, found in seen]
    kind = _kind(chosen, entity)
    sequence = list(entity.full_sequence) if entity is not None and kind != "ligand" else []
    if sequence:
        codes = [gemmi.Entity.first_mon(item) for item in sequence]
        places = _places_in_sequence(name, chosen, codes)
    else:
        codes, places = _observed_sequence(kind, chosen, atoms)
    rows = [(place, atom) for place, found in zip(places, atoms, strict=True) for atom in found]
    rows.sort(key=lambda row: row[0])
    chain = ExperimentalChain(
        name=name,
        kind=kind,
        codes=tuple(codes),
        letters="" if kind == "ligand" else "".join(_letter(kind, code) for code in codes),
        atom_residue=np.array([place for place, _ in rows], dtype=np.int32),
        atom_names=tuple(atom.name for _, atom in rows),
        coords=np.array([atom.pos.tolist() for _, atom in rows]),
        bfactors=np.array([atom.b_iso for _, atom in rows], dtype=np.float32),
    )
    numbers = [str(residue.seqid) for residue in chosen]
    return _Subchain(chain, dict(zip(numbers, places, strict=True)))


def _same_place(span: gemmi.ResidueSpan) -> Iterator[list[gemmi.Residue]]:
    """Residues by their place in the chain: several where it has alternative components."""
    group: list[gemmi.Residue] = []
    for residue in span:
        if group and residue.seqid != group[-1].seqid:
            yield group
            group = []
        group.append(residue)
    if group:
        yield group


def _most_occupied(residues: Sequence[gemmi.Residue]) -> gemmi.Residue:
    """The component of the largest occupancy; of equal ones the first."""
    return max(residues, key=lambda residue: max((atom.occ for atom in residue), default=0.0))


def _atoms(residue: gemmi.Residue) -> list[gemmi.Atom]:
    """Heavy atoms of a residue, each where its occupancy is largest; of equal ones the first."""
    best: dict[str, gemmi.Atom] = {}
    for atom in residue:
        if atom.is_hydrogen():
            continue
        known = best.get(atom.name)
        if known is None or atom.occ > known.occ:
            best[atom.name] = atom
    return list(best.values())


def _kind(residues: Sequence[gemmi.Residue], entity: gemmi.Entity | None) -> Kind:
    if entity is None or entity.entity_type != gemmi.EntityType.Polymer:
        return "ligand"
    found = _KINDS.get(entity.polymer_type)
    return found or _most_common_kind(residues)


def _most_common_kind(residues: Sequence[gemmi.Residue]) -> Kind:
    """What most residues of a polymer of no single type are, a hybrid of DNA and RNA for one."""
    counts: dict[Kind, int] = {"protein": 0, "dna": 0, "rna": 0}
    for residue in residues:
        info = gemmi.find_tabulated_residue(residue.name)
        if info.kind == gemmi.ResidueKind.DNA:
            counts["dna"] += 1
        elif info.kind == gemmi.ResidueKind.RNA:
            counts["rna"] += 1
        elif info.is_amino_acid():
            counts["protein"] += 1
    kind = max(counts, key=lambda each: counts[each])
    return kind if counts[kind] else "ligand"


def _places_in_sequence(
    name: str, residues: Sequence[gemmi.Residue], codes: list[str]
) -> list[int]:
    """The place of each residue in its entity's sequence; where the sequence has alternatives, it
    takes the component that was chosen.
    """
    places = []
    for residue in residues:
        number = residue.label_seq
        if number is None or not 1 <= number <= len(codes):
            raise ValueError(
                f"residue {residue.name} {residue.seqid} of chain {name} has the number {number} "
                f"in a sequence of {len(codes)}"
            )
        codes[number - 1] = residue.name
        places.append(number - 1)
    return places


def _observed_sequence(
    kind: Kind, residues: Sequence[gemmi.Residue], atoms: Sequence[Sequence[gemmi.Atom]]
) -> tuple[list[str], list[int]]:
    """The components of a chain whose entity has no sequence, and the place of each residue."""
    codes: list[str] = []
    places = []
    for i, residue in enumerate(residues):
        if i and kind != "ligand" and not _are_bonded(atoms[i - 1], atoms[i]):
            missing = _number_between(residues[i - 1], residue)
            codes += [_UNKNOWN[kind]] * min(missing, MAX_GAP)
        places.append(len(codes))
        codes.append(residue.name)
    return codes, places


def _number_between(first: gemmi.Residue, second: gemmi.Residue) -> int:
    """How many residues the file's numbers, its own or the author's, leave out between two."""
    own = (second.label_seq or 0) - (first.label_seq or 0) - 1
    author = (second.seqid.num or 0) - (first.seqid.num or 0) - 1
    return max(own, author, 0)


def _are_bonded(first: Sequence[gemmi.Atom], second: Sequence[gemmi.Atom]) -> bool:
    """Whether atoms of two residues are as close as bonded ones."""
    distances = np.linalg.norm(_positions(first)[:, None] - _positions(second), axis=-1)
    return bool(distances.min() < MAX_BOND)


def _positions(atoms: Sequence[gemmi.Atom]) -> Float[np.ndarray, "n 3"]:
    return np.array([atom.pos.tolist() for atom in atoms])


def _letter(kind: Kind, code: str) -> str:
    """The letter of a residue of a polymer, for a modified one that of its parent."""
    letter = gemmi.find_tabulated_residue(code).one_letter_code.upper()
    return letter if letter in ALPHABETS[kind] and letter.strip() else UNKNOWN_LETTERS[kind]


def _bonds(
    structure: gemmi.Structure, chains: Mapping[str, _Subchain], copies: Sequence[_Copy]
) -> Iterator[tuple[BondEnd, BondEnd]]:
    """The covalent bonds that the file lists between residues (`struct_conn` of type covale, as in
    Boltz), but for those along a polymer, for all copies that are placed alike.
    """
    by_placement: dict[int, dict[str, str]] = {}
    for copy in copies:
        by_placement.setdefault(copy.placement, {})[copy.subchain] = copy.name
    for connection in structure.connections:
        if connection.type != gemmi.ConnectionType.Covale:
            continue
        if connection.asu == gemmi.Asu.Different:  # with a neighbour in the crystal
            continue
        ends = [_bond_end(structure[0], each, chains) for each in _partners(connection)]
        first, second = ends
        if first is None or second is None or first[:2] == second[:2]:
            continue
        is_polymer = chains[first[0]].chain.kind != "ligand"
        if first[0] == second[0] and is_polymer and abs(first[1] - second[1]) == 1:
            continue
        for names in by_placement.values():
            if first[0] in names and second[0] in names:
                yield (names[first[0]], *first[1:]), (names[second[0]], *second[1:])


def _partners(connection: gemmi.Connection) -> tuple[gemmi.AtomAddress, gemmi.AtomAddress]:
    return connection.partner1, connection.partner2


def _bond_end(
    model: gemmi.Model, address: gemmi.AtomAddress, chains: Mapping[str, _Subchain]
) -> BondEnd | None:
    """The end of a bond, with the name of its subchain; None where the atom was not kept."""
    residue = model.find_cra(address, ignore_segment=True).residue
    if residue is None or residue.subchain not in chains:
        return None
    subchain = chains[residue.subchain]
    place = subchain.places.get(str(residue.seqid))
    if place is None or subchain.chain.codes[place] != residue.name:
        return None
    return residue.subchain, place, address.atom_name
