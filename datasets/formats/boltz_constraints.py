"""Bonds, pockets, contacts and templates of a Boltz YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from foldcp.complex import Bond, Chain, Contact, Pocket, Template, Token
from foldcp.datasets.parsing.strict_yaml import (
    boolean,
    distance,
    existing_file,
    items,
    mapping,
    positive_integer,
    single_entry,
    string,
    strings,
)
from foldcp.datasets.parsing.text_files import join_names
from foldcp.datasets.parsing.yaml_tree import Node, describe

Chains = Mapping[str, Chain]  # by name
Constraints = tuple[tuple[Bond, ...], tuple[Pocket, ...], tuple[Contact, ...]]
_MAX_DISTANCE = 6.0  # Å, Boltz's default


def read_constraints(node: Node, chains: Chains) -> Constraints:
    """The list `constraints`. Raises ValueError for chains, residues and keys that do not exist."""
    bonds: list[Bond] = []
    pockets: list[Pocket] = []
    contacts: list[Contact] = []
    for number, item in enumerate(items(node, "constraints"), start=1):
        kind, value = single_entry(
            item, f"constraints, entry {number}", ["bond", "pocket", "contact"]
        )
        location = f"constraints, entry {number} ({kind})"
        if kind == "bond":
            bonds.append(read_bond(value, location, chains))
        elif kind == "pocket":
            pockets.append(_pocket(value, location, chains))
        else:
            contacts.append(_contact(value, location, chains))
    return tuple(bonds), tuple(pockets), tuple(contacts)


def read_templates(
    node: Node, chains: Chains, folder: Path, allow_outside: bool = False
) -> tuple[Template, ...]:
    """The list `templates`; files are found from `folder` or from the working directory."""
    return tuple(
        _template(item, f"templates, entry {number}", chains, folder, allow_outside)
        for number, item in enumerate(items(node, "templates"), start=1)
    )


def read_bond(node: Node, location: str, chains: Chains) -> Bond:
    """A bond of `atom1` and `atom2`, each [chain, residue, atom name]."""
    entry = mapping(node, location, ["atom1", "atom2"])
    bond = Bond(_atom(entry["atom1"], location, chains), _atom(entry["atom2"], location, chains))
    if bond.atom1 == bond.atom2:
        raise ValueError(f"{location}: atom1 and atom2 are the same atom")
    return bond


def _pocket(node: Node, location: str, chains: Chains) -> Pocket:
    entry = mapping(node, location, ["binder", "contacts"], ["max_distance", "force"])
    binder = _chain(entry["binder"], location, chains).name
    contacts = tuple(
        _token(token, location, chains) for token in items(entry["contacts"], location)
    )
    if not contacts:
        raise ValueError(f"{location}: contacts is empty")
    return Pocket(binder, contacts, _max_distance(entry, location), _force(entry, location))


def _contact(node: Node, location: str, chains: Chains) -> Contact:
    entry = mapping(node, location, ["token1", "token2"], ["max_distance", "force"])
    token1 = _token(entry["token1"], location, chains)
    token2 = _token(entry["token2"], location, chains)
    return Contact(token1, token2, _max_distance(entry, location), _force(entry, location))


def _template(
    node: Node, location: str, chains: Chains, folder: Path, allow_outside: bool
) -> Template:
    if all(chain.kind != "protein" for chain in chains.values()):
        raise ValueError(f"{location}: only proteins have templates, but the input has none")
    optional = ["cif", "pdb", "chain_id", "template_id", "force", "threshold"]
    entry = mapping(node, location, [], optional)
    if ("cif" in entry) == ("pdb" in entry):
        raise ValueError(f"{location}: give a file, either cif or pdb")
    file_key = "cif" if "cif" in entry else "pdb"
    names = _names(entry, "chain_id", location)
    template_names = _names(entry, "template_id", location)
    for name in names:
        if _chain(name, location, chains).kind != "protein":
            raise ValueError(
                f"{location}: only proteins have templates, but chain {name} is not one"
            )
    if names and template_names and len(names) != len(template_names):
        raise ValueError(
            f"{location}: {len(names)} in chain_id, but {len(template_names)} in template_id"
        )
    force = _force(entry, location)
    if force != ("threshold" in entry):
        raise ValueError(f"{location}: force: true and threshold (Å) must be given together")
    threshold = distance(entry["threshold"], f"{location}, threshold") if force else None
    place = f"{location}, {file_key}"
    path = existing_file(entry[file_key], place, folder, allow_outside=allow_outside)
    return Template(path, names, template_names, force, threshold)


def _names(entry: Mapping[str, Node], key: str, location: str) -> tuple[str, ...]:
    return strings(entry[key], f"{location}, {key}") if key in entry else ()


def _max_distance(entry: Mapping[str, Node], location: str) -> float:
    if "max_distance" not in entry:
        return _MAX_DISTANCE
    return distance(entry["max_distance"], f"{location}, max_distance")


def _force(entry: Mapping[str, Node], location: str) -> bool:
    return boolean(entry["force"], f"{location}, force") if "force" in entry else False


def _chain(node: Node, location: str, chains: Chains) -> Chain:
    name = string(node, location)
    if name not in chains:
        raise ValueError(
            f"{location}: unknown chain {describe(name)}; the chains are {join_names(chains)}"
        )
    return chains[name]


def _residue(node: Node, location: str, chain: Chain) -> int:
    number = positive_integer(node, location)
    length = len(chain.sequence) or len(chain.ccd) or 1
    if number > length:
        raise ValueError(f"{location}: chain {chain.name} has no residue {number} (of {length})")
    return number


def _atom(node: Node, location: str, chains: Chains) -> tuple[str, int, str]:
    parts = items(node, location)
    if len(parts) != 3:
        raise ValueError(f"{location}: expected an atom as [chain, residue, atom name]")
    chain = _chain(parts[0], location, chains)
    return chain.name, _residue(parts[1], location, chain), string(parts[2], location)


def _token(node: Node, location: str, chains: Chains) -> Token:
    parts = items(node, location)
    if len(parts) != 2:
        raise ValueError(
            f"{location}: expected a token as [chain, residue] or, in a ligand, [chain, atom name]"
        )
    chain = _chain(parts[0], location, chains)
    if chain.kind == "ligand":
        return chain.name, string(parts[1], location)
    return chain.name, _residue(parts[1], location, chain)
