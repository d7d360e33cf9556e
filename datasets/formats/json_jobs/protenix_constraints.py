"""Covalent bonds, contacts and pockets of a Protenix job, by the numbers of its entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foldcp.complex import Bond, Chain, Contact, Pocket, Token
from foldcp.datasets.parsing.strict_yaml import (
    distance,
    items,
    mapping,
    positive_integer,
    string,
)
from foldcp.datasets.parsing.yaml_tree import Node, describe

_SIDES = (("1", "left"), ("2", "right"))
_POSITIONS = ("entity", "copy", "position", "atom")


@dataclass(frozen=True, slots=True)
class Molecules:
    """The copies of each entry of a job."""

    copies: tuple[tuple[Chain, ...], ...]

    def entity(self, node: Node, location: str) -> tuple[Chain, ...]:
        """The copies of an entry, by its number from 1."""
        number = positive_integer(node, location)
        if number > len(self.copies):
            raise ValueError(f"{location}: there is no entry {number} (of {len(self.copies)})")
        return self.copies[number - 1]

    def copy(self, entity: Node, copy: Node, location: str) -> Chain:
        """One copy of an entry, by their numbers from 1."""
        chains = self.entity(entity, f"{location}, entity")
        number = positive_integer(copy, f"{location}, copy")
        if number > len(chains):
            raise ValueError(f"{location}, copy: there is no copy {number} (of {len(chains)})")
        return chains[number - 1]


def read_bonds(node: Node, molecules: Molecules) -> tuple[Bond, ...]:
    """The list `covalent_bonds`; where copies are left out, the nth of one is bound to the nth."""
    return tuple(
        bond
        for number, item in enumerate(items(node, "covalent_bonds"), start=1)
        for bond in _bonds(item, f"covalent_bonds, entry {number}", molecules)
    )


def _bonds(node: Node, location: str, molecules: Molecules) -> list[Bond]:
    entry = _with_new_keys(node, location)
    required = [name + side for name in ("entity", "position", "atom") for side in "12"]
    entry = mapping(entry, location, required, ["copy1", "copy2"])
    if ("copy1" in entry) != ("copy2" in entry):
        raise ValueError(f"{location}: give both copy1 and copy2, or neither")
    ends = []
    for side in "12":
        if "copy1" in entry:
            place = f"{location} (atom {side})"
            chain = molecules.copy(entry[f"entity{side}"], entry[f"copy{side}"], place)
            chains = (chain,)
        else:
            chains = molecules.entity(entry[f"entity{side}"], f"{location}, entity{side}")
        position = entry[f"position{side}"]
        atom = string(entry[f"atom{side}"], f"{location}, atom{side}")
        ends.append([_atom(c, position, atom, f"{location}, position{side}") for c in chains])
    if len(ends[0]) != len(ends[1]):
        raise ValueError(
            f"{location}: without copies, both entries must have as many of them, not "
            f"{len(ends[0])} and {len(ends[1])}"
        )
    if any(first == second for first, second in zip(*ends, strict=True)):
        raise ValueError(f"{location}: both atoms are the same")
    return [Bond(first, second) for first, second in zip(*ends, strict=True)]


def _with_new_keys(node: Node, location: str) -> Node:
    """A bond with the keys of today, `entity1` for `left_entity`."""
    if not isinstance(node, dict):
        return node
    new = {f"{side}_{name}": name + number for number, side in _SIDES for name in _POSITIONS}
    for old in new.keys() & node.keys():
        if new[old] in node:
            raise ValueError(f"{location}: {old} and {new[old]} are the same key")
    return {new.get(key, key): value for key, value in node.items()}


def _atom(chain: Chain, position: Node, atom: str, location: str) -> tuple[str, int, str]:
    return chain.name, _residue(chain, position, location), _named(chain, atom, location)


def _residue(chain: Chain, node: Node, location: str) -> int:
    number = positive_integer(node, location)
    length = len(chain.sequence) or len(chain.ccd) or 1
    if number > length:
        raise ValueError(f"{location}: chain {chain.name} has no residue {number} (of {length})")
    return number


def _named(chain: Chain, atom: str, location: str) -> str:
    """An atom's name; those of a SMILES are numbered in another way than ours."""
    if chain.smiles:
        raise ValueError(
            f"{location}: chain {chain.name} is a SMILES, whose atoms have no names; use CCD codes"
        )
    return atom


def read_contacts(node: Node, molecules: Molecules) -> tuple[Contact, ...]:
    """The list `contact` of a job's constraints."""
    return tuple(
        _contact(item, f"constraint, contact, entry {number}", molecules)
        for number, item in enumerate(items(node, "constraint, contact"), start=1)
    )


def _contact(node: Node, location: str, molecules: Molecules) -> Contact:
    required = [name + side for name in ("entity", "copy", "position") for side in "12"]
    optional = ["atom1", "atom2", "min_distance"]
    entry = mapping(node, location, [*required, "max_distance"], optional)
    if _number(entry.get("min_distance", "0"), f"{location}, min_distance") != 0:
        raise ValueError(
            f"{location}, min_distance: a least distance is not supported, got "
            f"{describe(entry['min_distance'])}"
        )
    limit = distance(entry["max_distance"], f"{location}, max_distance")
    return Contact(
        _side(entry, "1", location, molecules), _side(entry, "2", location, molecules), limit
    )


def _side(entry: Mapping[str, Node], side: str, location: str, molecules: Molecules) -> Token:
    place = f"{location} (token {side})"
    chain = molecules.copy(entry[f"entity{side}"], entry[f"copy{side}"], place)
    return _token(chain, entry[f"position{side}"], entry.get(f"atom{side}"), place)


def _number(node: Node, location: str) -> float:
    try:
        return float(string(node, location))
    except ValueError as error:
        raise ValueError(f"{location}: expected a number, got {describe(node)}") from error


def _token(chain: Chain, position: Node, atom: Node | None, location: str) -> Token:
    """A residue of a polymer, or an atom of a ligand."""
    number = _residue(chain, position, f"{location}, position")
    if chain.kind != "ligand":
        if atom is not None:
            raise ValueError(
                f"{location}, atom: contacts are of residues, not of the atom {describe(atom)} of "
                f"chain {chain.name}"
            )
        return chain.name, number
    if atom is None:
        raise ValueError(f"{location}: an atom of the ligand {chain.name} must be named")
    if len(chain.ccd) > 1:
        raise ValueError(f"{location}: the ligand {chain.name} has several components")
    return chain.name, _named(chain, string(atom, location), location)


def read_pockets(node: Node, molecules: Molecules) -> tuple[Pocket, ...]:
    """The `pocket` of a job's constraints."""
    location = "constraint, pocket"
    entry = mapping(node, location, ["binder_chain", "contact_residues", "max_distance"])
    binder = mapping(entry["binder_chain"], f"{location}, binder_chain", ["entity", "copy"])
    chain = molecules.copy(binder["entity"], binder["copy"], f"{location}, binder_chain")
    contacts = tuple(
        _pocket_token(item, f"{location}, contact_residues, entry {number}", molecules)
        for number, item in enumerate(items(entry["contact_residues"], location), start=1)
    )
    if not contacts:
        raise ValueError(f"{location}, contact_residues: the list is empty")
    limit = distance(entry["max_distance"], f"{location}, max_distance")
    return (Pocket(chain.name, contacts, limit),)


def _pocket_token(node: Node, location: str, molecules: Molecules) -> Token:
    entry: Mapping[str, Node] = mapping(node, location, ["entity", "copy", "position"])
    chain = molecules.copy(entry["entity"], entry["copy"], location)
    return _token(chain, entry["position"], None, location)
