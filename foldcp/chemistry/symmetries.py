"""Symmetries of molecules: exchanges of atoms that leave a residue or ligand what it is."""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Int

from foldcp.chemistry.ligands import quiet_rdkit
from foldcp.chemistry.vocabulary import BOND_TYPES, Component

MAX_SYMMETRIES = 100  # of a component
# Atoms of standard residues that are exchanged together (Boltz: `ref_symmetries`).
_PHOSPHATE = (("OP1", "OP2"),)
_EXCHANGED: dict[str, tuple[tuple[str, str], ...]] = {
    "ASP": (("OD1", "OD2"),),
    "GLU": (("OE1", "OE2"),),
    "PHE": (("CD1", "CD2"), ("CE1", "CE2")),
    "TYR": (("CD1", "CD2"), ("CE1", "CE2")),
    **dict.fromkeys(("A", "G", "C", "U", "DA", "DG", "DC", "DT"), _PHOSPHATE),
}


def symmetries(component: Component) -> list[Int[np.ndarray, "n 2"]]:
    """The symmetries of a component but for the identity: (atom, atom that it takes the place of),
    as numbers of its atoms that differ. At most `MAX_SYMMETRIES`.

    Those of what is not standard are the automorphisms of its heavy atoms and bonds. Raises
    ValueError where RDKit is missing.
    """
    if component.standard:
        return _of_standard(component)
    return _of_graph(component)


def _of_standard(component: Component) -> list[Int[np.ndarray, "n 2"]]:
    exchanged = _EXCHANGED.get(component.code, ())
    index = component.atom_names.index
    pairs = [(index(a), index(b)) for a, b in exchanged]
    pairs += [(b, a) for a, b in pairs]
    return [np.array(sorted(pairs))] if pairs else []


@cache
def _of_graph(component: Component) -> list[Int[np.ndarray, "n 2"]]:
    if component.num_atoms == 1:
        return []
    with quiet_rdkit(f"component {component.code!r}"):
        from rdkit import Chem

        mol = Chem.RWMol()
        for element, charge in zip(
            component.elements.tolist(), component.charges.tolist(), strict=True
        ):
            atom = Chem.Atom(element)
            atom.SetFormalCharge(charge)
            atom.SetNoImplicit(True)
            mol.AddAtom(atom)
        kinds = {
            "SINGLE": Chem.BondType.SINGLE,
            "DOUBLE": Chem.BondType.DOUBLE,
            "TRIPLE": Chem.BondType.TRIPLE,
            "AROMATIC": Chem.BondType.AROMATIC,
        }
        for first, second, kind in component.bonds.tolist():
            mol.AddBond(first, second, kinds.get(BOND_TYPES[kind], Chem.BondType.ZERO))
        # One more, for the identity.
        matches = mol.GetSubstructMatches(mol, uniquify=False, maxMatches=MAX_SYMMETRIES + 1)
    own = np.arange(component.num_atoms)
    pairs = [np.stack([own, np.array(match)], 1) for match in matches]
    moved = [each[each[:, 0] != each[:, 1]] for each in pairs]
    return [each for each in moved if len(each)][:MAX_SYMMETRIES]
