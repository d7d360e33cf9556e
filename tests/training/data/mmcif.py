"""Small mmCIF files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

STRUCTURES = Path(__file__).parents[4] / "shared/data/structures"

LETTERS = {
    "A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU",
    "G": "GLY", "H": "HIS", "I": "ILE", "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE",
    "P": "PRO", "S": "SER", "T": "THR", "W": "TRP", "Y": "TYR", "V": "VAL", "X": "UNK",
}  # fmt: skip
# Backbone of a chain along x, in Å from its CA; consecutive CA are 3.8 Å apart.
BACKBONE = {
    "N": (-1.2, 0.4, 0.0),
    "CA": (0.0, 0.0, 0.0),
    "C": (1.3, 0.5, 0.0),
    "O": (1.4, 1.7, 0.0),
    "CB": (-0.3, -0.9, 1.2),
}
STEP = 3.8  # Å


@dataclass(frozen=True)
class Atom:
    """A row of atom_site."""

    name: str
    component: str
    subchain: str
    entity: str
    place: int | None  # in the sequence, from 1
    xyz: tuple[float, float, float]
    number: int = 1  # of the residue, the author's
    altloc: str = "."
    occupancy: float = 1.0
    bfactor: float = 20.0
    element: str = ""
    group: str = "ATOM"

    @property
    def row(self) -> str:
        x, y, z = self.xyz
        element = self.element or self.name[0]
        place = "." if self.place is None else self.place
        return (
            f'{self.group} {element} "{self.name}" {self.altloc} {self.component} {self.subchain} '
            f"{self.entity} {place} {x:.3f} {y:.3f} {z:.3f} {self.occupancy} {self.bfactor} "
            f"{self.number} {self.subchain} 1"
        )


def protein(
    subchain: str,
    sequence: str,
    *,
    entity: str = "1",
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    missing: Sequence[int] = (),
    numbered: bool = True,
) -> list[Atom]:
    """A straight chain with its backbone and CB, without the residues that are missing (from 1)."""
    atoms = []
    for place, letter in enumerate(sequence, 1):
        for name, offset in BACKBONE.items():
            if place in missing or (letter == "G" and name == "CB"):
                continue
            x, y, z = (a + b for a, b in zip(origin, offset, strict=True))
            atoms.append(
                Atom(
                    name,
                    LETTERS[letter],
                    subchain,
                    entity,
                    place if numbered else None,
                    (x + STEP * place, y, z),
                    number=place,
                    bfactor=10.0 + place,
                )
            )
    return atoms


@dataclass(frozen=True)
class File:
    """What an mmCIF file says. `polymers` are sequences of components by entity, empty for one
    whose sequence the file does not tell; `assembly` has subchains and shifts in Å.
    """

    atoms: Sequence[Atom]
    polymers: Mapping[str, Sequence[str]]
    types: Mapping[str, str] = field(default_factory=dict)  # of polymers, else polypeptide(L)
    date: str = "2020-01-01"
    resolution: str = "2.0"
    method: str = "X-RAY DIFFRACTION"
    assembly: tuple[Sequence[str], Sequence[tuple[float, float, float]]] | None = None
    bonds: Sequence[tuple[Atom, Atom]] = ()

    @property
    def text(self) -> str:
        entities = sorted({atom.entity for atom in self.atoms})
        subchains = sorted({(atom.subchain, atom.entity) for atom in self.atoms})
        parts = [
            "data_test",
            f"_exptl.method '{self.method}'",
            f"_refine.ls_d_res_high {self.resolution}",
            f"_pdbx_database_status.recvd_initial_deposition_date {self.date}",
            _loop(
                "entity",
                ("id", "type"),
                [(e, "polymer" if e in self.polymers else "non-polymer") for e in entities],
            ),
            _loop(
                "entity_poly",
                ("entity_id", "type"),
                [(e, self.types.get(e, "polypeptide(L)")) for e in self.polymers],
            ),
            _loop(
                "entity_poly_seq",
                ("entity_id", "num", "mon_id"),
                [
                    (e, n, code)
                    for e, codes in self.polymers.items()
                    for n, code in enumerate(codes, 1)
                ],
            ),
            _loop("struct_asym", ("id", "entity_id"), subchains),
            _loop(
                "atom_site",
                (
                    "id",
                    "group_PDB",
                    "type_symbol",
                    "label_atom_id",
                    "label_alt_id",
                    "label_comp_id",
                    "label_asym_id",
                    "label_entity_id",
                    "label_seq_id",
                    "Cartn_x",
                    "Cartn_y",
                    "Cartn_z",
                    "occupancy",
                    "B_iso_or_equiv",
                    "auth_seq_id",
                    "auth_asym_id",
                    "pdbx_PDB_model_num",
                ),
                list(enumerate((atom.row for atom in self.atoms), 1)),
            ),
            self._assembly(),
            self._bonds(),
        ]
        return "\n".join(part for part in parts if part) + "\n"

    def _assembly(self) -> str:
        if self.assembly is None:
            return ""
        subchains, shifts = self.assembly
        operators = ",".join(str(i) for i in range(1, len(shifts) + 1))
        matrix = [f"matrix[{i}][{j}]" for i in (1, 2, 3) for j in (1, 2, 3)]
        vector = [f"vector[{i}]" for i in (1, 2, 3)]
        identity = (1, 0, 0, 0, 1, 0, 0, 0, 1)
        return "\n".join(
            [
                _loop(
                    "pdbx_struct_assembly",
                    ("id", "details", "method_details", "oligomeric_details", "oligomeric_count"),
                    [("1", "author_defined_assembly", "?", "?", "?")],
                ),
                _loop(
                    "pdbx_struct_assembly_gen",
                    ("assembly_id", "oper_expression", "asym_id_list"),
                    [("1", operators, ",".join(subchains))],
                ),
                _loop(
                    "pdbx_struct_oper_list",
                    ("id", "type", *matrix, *vector),
                    [(i, "x", *identity, *shift) for i, shift in enumerate(shifts, 1)],
                ),
            ]
        )

    def _bonds(self) -> str:
        ends = ("label_asym_id", "label_comp_id", "label_seq_id", "label_atom_id", "auth_asym_id",
                "auth_comp_id", "auth_seq_id")  # fmt: skip
        columns = [f"ptnr{i}_{name}" for i in (1, 2) for name in ends]
        rows = [
            (
                f"covale{number}",
                "covale",
                *(
                    value
                    for a in pair
                    for value in (
                        a.subchain,
                        a.component,
                        "." if a.place is None else a.place,
                        a.name,
                        a.subchain,
                        a.component,
                        a.number,
                    )
                ),
            )
            for number, pair in enumerate(self.bonds, 1)
        ]
        return _loop("struct_conn", ("id", "conn_type_id", *columns), rows)

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.text)
        return path


def _loop(category: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    lines = ["loop_", *(f"_{category}.{column}" for column in columns)]
    return "\n".join([*lines, *(" ".join(map(str, row)) for row in rows)])


def codes(sequence: str) -> list[str]:
    """The components of a protein."""
    return [LETTERS[letter] for letter in sequence]


def single_protein(sequence: str, **said: str) -> File:
    """A protein that is wholly resolved."""
    return File(protein("A", sequence), {"1": codes(sequence)}, **said)  # type: ignore[arg-type]


def real_structure(name: str) -> Path:
    """A structure of the shared data; skips where it is missing."""
    path = STRUCTURES / f"{name}.cif.gz"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    return path
