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
        where = f"constraints, entry {number} ({kind})"
        if kind == "bond":
            bonds.append(_bond(value, where, chains))
        elif kind == "pocket":
            pockets.append(_pocket(value, where, chains))
        else:
            contacts.append(_contact(value, where, chains))
    return tuple(bonds), tuple(pockets), tuple(contacts)


def read_templates(node: Node, chains: Chains, folder: Path) -> tuple[Template, ...]:
    """The list `templates`; files are found from `folder` or from the working directory."""
    return tuple(
        _template(item, f"templates, entry {number}", chains, folder)
        for number, item in enumerate(items(node, "templates"), start=1)
    )


def _bond(node: Node, where: str, chains: Chains) -> Bond:
    entry = mapping(node, where, ["atom1", "atom2"])
    bond = Bond(_atom(entry["atom1"], where, chains), _atom(entry["atom2"], where, chains))
    if bond.atom1 == bond.atom2:
        raise ValueError(f"{where}: atom1 and atom2 are the same atom")
    return bond


def _pocket(node: Node, where: str, chains: Chains) -> Pocket:
    entry = mapping(node, where, ["binder", "contacts"], ["max_distance", "force"])
    binder = _chain(entry["binder"], where, chains).name
    contacts = tuple(_token(token, where, chains) for token in items(entry["contacts"], where))
    if not contacts:
        raise ValueError(f"{where}: contacts is empty")
    return Pocket(binder, contacts, _max_distance(entry, where), _force(entry, where))


def _contact(node: Node, where: str, chains: Chains) -> Contact:
    entry = mapping(node, where, ["token1", "token2"], ["max_distance", "force"])
    token1 = _token(entry["token1"], where, chains)
    token2 = _token(entry["token2"], where, chains)
    return Contact(token1, token2, _max_distance(entry, where), _force(entry, where))


def _template(node: Node, where: str, chains: Chains, folder: Path) -> Template:
    if all(chain.kind != "protein" for chain in chains.values()):
        raise ValueError(f"{where}: only proteins have templates, but the input has none")
    optional = ["cif", "pdb", "chain_id", "template_id", "force", "threshold"]
    entry = mapping(node, where, [], optional)
    if ("cif" in entry) == ("pdb" in entry):
        raise ValueError(f"{where}: give a file, either cif or pdb")
    file_key = "cif" if "cif" in entry else "pdb"
    names = _names(entry, "chain_id", where)
    template_names = _names(entry, "template_id", where)
    for name in names:
        if _chain(name, where, chains).kind != "protein":
            raise ValueError(f"{where}: only proteins have templates, but chain {name} is not one")
    if names and template_names and len(names) != len(template_names):
        raise ValueError(
            f"{where}: {len(names)} in chain_id, but {len(template_names)} in template_id"
        )
    force = _force(entry, where)
    if force != ("threshold" in entry):
        raise ValueError(f"{where}: force: true and threshold (Å) must be given together")
    threshold = distance(entry["threshold"], f"{where}, threshold") if force else None
    path = existing_file(entry[file_key], f"{where}, {file_key}", folder)
    return Template(path, names, template_names, force, threshold)


def _names(entry: Mapping[str, Node], key: str, where: str) -> tuple[str, ...]:
    return strings(entry[key], f"{where}, {key}") if key in entry else ()


def _max_distance(entry: Mapping[str, Node], where: str) -> float:
    if "max_distance" not in entry:
        return _MAX_DISTANCE
    return distance(entry["max_distance"], f"{where}, max_distance")


def _force(entry: Mapping[str, Node], where: str) -> bool:
    return boolean(entry["force"], f"{where}, force") if "force" in entry else False


def _chain(node: Node, where: str, chains: Chains) -> Chain:
    name = string(node, where)
    if name not in chains:
        raise ValueError(
            f"{where}: unknown chain {describe(name)}; the chains are {join_names(chains)}"
        )
    return chains[name]


def _residue(node: Node, where: str, chain: Chain) -> int:
    number = positive_integer(node, where)
    length = len(chain.sequence) or len(chain.ccd) or 1
    if number > length:
        raise ValueError(f"{where}: chain {chain.name} has no residue {number} (of {length})")
    return number


def _atom(node: Node, where: str, chains: Chains) -> tuple[str, int, str]:
    parts = items(node, where)
    if len(parts) != 3:
        raise ValueError(f"{where}: expected an atom as [chain, residue, atom name]")
    chain = _chain(parts[0], where, chains)
    return chain.name, _residue(parts[1], where, chain), string(parts[2], where)


def _token(node: Node, where: str, chains: Chains) -> Token:
    parts = items(node, where)
    if len(parts) != 2:
        raise ValueError(
            f"{where}: expected a token as [chain, residue] or, in a ligand, [chain, atom name]"
        )
    chain = _chain(parts[0], where, chains)
    if chain.kind == "ligand":
        return chain.name, string(parts[1], where)
    return chain.name, _residue(parts[1], where, chain)
