"""Synthetic complexes and their files, for comparison with references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np

from foldcp.chemistry.ligands import ccd_component
from foldcp.chemistry.vocabulary import Component, standard_residue
from foldcp.pipeline.evaluation.structures.chain import Chain, Kind
from foldcp.pipeline.evaluation.structures.read import _letter

STEPS = {"protein": 3.8, "dna": 6.0, "rna": 6.0}  # Å, from residue to residue
KINDS = {
    "protein": gemmi.ResidueKind.AA,
    "dna": gemmi.ResidueKind.DNA,
    "rna": gemmi.ResidueKind.RNA,
}
POLYMER_TYPES = {
    "protein": "polypeptide(L)",
    "dna": "polydeoxyribonucleotide",
    "rna": "polyribonucleotide",
}


def polymer(
    name: str, letters: str, seed: int, kind: Kind = "protein", center: Sequence[float] = (0, 0, 0)
) -> Chain:
    """A compact chain: residues with the atoms of the CCD, turned at random, along a random walk
    around a centre.
    """
    codes = gemmi.expand_one_letter_sequence(letters, KINDS[kind])
    rng = np.random.default_rng(seed)
    radius = STEPS[kind] * len(codes) ** (1 / 3) / 1.5
    places = [rng.normal(0, 1, 3)]
    for _ in codes[1:]:
        inward = -places[-1] * (np.linalg.norm(places[-1]) > radius)
        direction = rng.normal(0, 1, 3) + inward
        places.append(places[-1] + STEPS[kind] * direction / np.linalg.norm(direction))
    return chain_of(name, kind, codes, places, rng, center)


def ligand(name: str, code: str, seed: int, center: Sequence[float] = (0, 0, 0)) -> Chain:
    """A component of the CCD around a centre, turned at random."""
    rng = np.random.default_rng(seed)
    return chain_of(name, "ligand", [code], [np.zeros(3)], rng, center)


def chain_of(
    name: str,
    kind: Kind,
    codes: Sequence[str],
    places: Sequence[np.ndarray],
    rng: np.random.Generator,
    center: Sequence[float],
) -> Chain:
    parts = [_component(code, kind) for code in codes]
    coords = []
    for part, place in zip(parts, places, strict=True):
        centered = part.positions - part.positions.mean(axis=0)
        coords.append(centered @ rotation(rng) + place + np.asarray(center))
    symbols = [gemmi.Element(int(n)).name.upper() for part in parts for n in part.elements]
    return Chain(
        name=name,
        kind=kind,
        codes=tuple(codes),
        letters="".join(map(_letter, codes)),
        atom_residue=np.repeat(np.arange(len(parts)), [part.num_atoms for part in parts]),
        atom_names=np.array([atom for part in parts for atom in part.atom_names]),
        elements=np.array(symbols),
        coords=np.concatenate(coords).round(3),
    )


def _component(code: str, kind: Kind) -> Component:
    is_standard = kind != "ligand" and gemmi.find_tabulated_residue(code).is_standard()
    return standard_residue(code) if is_standard else ccd_component(code, kind)


def rotation(rng: np.random.Generator) -> np.ndarray:
    """A rotation matrix at random."""
    q, _ = np.linalg.qr(rng.normal(0, 1, (3, 3)))
    return q * np.sign(np.linalg.det(q))


def moved(chain: Chain, rotation: np.ndarray, shift: Sequence[float]) -> Chain:
    """The chain after a rigid motion about the origin."""
    return replace(chain, coords=(chain.coords @ rotation + np.asarray(shift)).round(3))


def turned(chain: Chain, rng: np.random.Generator, angle: float, shift: float) -> Chain:
    """The chain turned by an angle (radians) about its centre, and shifted by Å, at random."""
    axis = rng.normal(0, 1, 3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    center = chain.coords.mean(axis=0)
    step = rng.normal(0, 1, 3)
    coords = (chain.coords - center) @ matrix + center + shift * step / np.linalg.norm(step)
    return replace(chain, coords=coords.round(3))


def noisy(chain: Chain, rng: np.random.Generator, deviation: float) -> Chain:
    """The chain with normally distributed deviations of each atom, in Å."""
    noise = rng.normal(0, deviation, chain.coords.shape)
    return replace(chain, coords=(chain.coords + noise).round(3))


def without(chain: Chain, residues: Sequence[int]) -> Chain:
    """The chain, some residues of which are not resolved."""
    kept = ~np.isin(chain.atom_residue, residues)
    return replace(
        chain,
        atom_residue=chain.atom_residue[kept],
        atom_names=chain.atom_names[kept],
        elements=chain.elements[kept],
        coords=chain.coords[kept],
    )


def write_cif(
    path: Path,
    chains: Sequence[Chain],
    first_number: int = 1,
    with_sequences: bool = True,
    asym_names: Sequence[str] = (),
) -> Path:
    """Write an mmCIF file; author's numbers begin with `first_number`."""
    document = gemmi.cif.Document()
    block = document.add_new_block("synthetic")
    atoms = block.init_loop(
        "_atom_site.",
        [
            "group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id",
            "label_asym_id", "label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x",
            "Cartn_y", "Cartn_z", "occupancy", "B_iso_or_equiv", "auth_seq_id", "auth_comp_id",
            "auth_asym_id", "auth_atom_id", "pdbx_PDB_model_num",
        ],
    )  # fmt: skip
    labels = asym_names or [chain.name for chain in chains]
    number = 0
    for entity, (label, chain) in enumerate(zip(labels, chains, strict=True), start=1):
        group = "ATOM" if chain.is_polymer else "HETATM"
        for residue, name, element, (x, y, z) in zip(
            chain.atom_residue, chain.atom_names, chain.elements, chain.coords, strict=True
        ):
            number += 1
            code = chain.codes[residue]
            place = str(residue + 1) if chain.is_polymer else "."
            row = [
                group, str(number), element, name, ".", code, label, str(entity), place, "?",
                f"{x:.3f}", f"{y:.3f}", f"{z:.3f}", "1.00", "50.00", str(residue + first_number),
                code, chain.name, name, "1",
            ]  # fmt: skip
            atoms.add_row([value if value in ".?" else gemmi.cif.quote(value) for value in row])
    if with_sequences:
        _add_sequences(block, chains)
    document.write_file(str(path))
    return path


def _add_sequences(block: gemmi.cif.Block, chains: Sequence[Chain]) -> None:
    numbered = [(n, chain) for n, chain in enumerate(chains, start=1) if chain.is_polymer]
    loop = block.init_loop("_entity_poly.", ["entity_id", "type"])
    for entity, chain in numbered:
        loop.add_row([str(entity), gemmi.cif.quote(POLYMER_TYPES[chain.kind])])
    loop = block.init_loop("_entity_poly_seq.", ["entity_id", "num", "mon_id", "hetero"])
    for entity, chain in numbered:
        for number, code in enumerate(chain.codes, start=1):
            loop.add_row([str(entity), str(number), code, "n"])
