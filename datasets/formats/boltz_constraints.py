"""Bonds, pockets, contacts and templates of a Boltz YAML: what it asks of the structure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from foldcp.complex import Bond, Chain, Contact, Pocket, Template, Token
from foldcp.datasets.parsing.strict_yaml import (
    distance,
    fields,
    file,
    flag,
    items,
    only,
    text,
    texts,
    whole,
)
from foldcp.datasets.parsing.text_files import listed
from foldcp.datasets.parsing.yaml_tree import Node, shown

Chains = Mapping[str, Chain]
Constraints = tuple[tuple[Bond, ...], tuple[Pocket, ...], tuple[Contact, ...]]
_MAX_DISTANCE = 6.0  # Å, Boltz's default


def read_constraints(node: Node, chains: Chains) -> Constraints:
    """The list `constraints`. Raises ValueError for chains, residues and keys that do not exist."""
    bonds: list[Bond] = []
    pockets: list[Pocket] = []
    contacts: list[Contact] = []
    for number, item in enumerate(items(node, "constraints"), start=1):
        kind, value = only(item, f"constraints, entry {number}", ["bond", "pocket", "contact"])
        where = f"constraints, entry {number} ({kind})"
        if kind == "bond":
            given = fields(value, where, ["atom1", "atom2"])
            bond = Bond(
                _atom(given["atom1"], where, chains),
                _atom(given["atom2"], where, chains),
            )
            if bond.atom1 == bond.atom2:
                raise ValueError(f"{where}: atom1 and atom2 are the same atom")
            bonds.append(bond)
        elif kind == "pocket":
            given = fields(value, where, ["binder", "contacts"], ["max_distance", "force"])
            binder = _chain(given["binder"], where, chains).name
            touched = tuple(
                _token(token, where, chains) for token in items(given["contacts"], where)
            )
            if not touched:
                raise ValueError(f"{where}: contacts is empty")
            pockets.append(Pocket(binder, touched, *_strength(given, where)))
        else:
            given = fields(value, where, ["token1", "token2"], ["max_distance", "force"])
            pair = (
                _token(given["token1"], where, chains),
                _token(given["token2"], where, chains),
            )
            contacts.append(Contact(*pair, *_strength(given, where)))
    return tuple(bonds), tuple(pockets), tuple(contacts)


def read_templates(node: Node, chains: Chains, folder: Path) -> tuple[Template, ...]:
    """The list `templates`; files are found from `folder` or from the working directory."""
    templates: list[Template] = []
    for number, item in enumerate(items(node, "templates"), start=1):
        where = f"templates, entry {number}"
        if all(chain.kind != "protein" for chain in chains.values()):
            raise ValueError(f"{where}: only proteins have templates, and there is none")
        given = fields(
            item,
            where,
            [],
            ["cif", "pdb", "chain_id", "template_id", "force", "threshold"],
        )
        if ("cif" in given) == ("pdb" in given):
            raise ValueError(f"{where}: give a file, either cif or pdb")
        kind = "cif" if "cif" in given else "pdb"
        ours = texts(given["chain_id"], f"{where}, chain_id") if "chain_id" in given else ()
        theirs = (
            texts(given["template_id"], f"{where}, template_id") if "template_id" in given else ()
        )
        for name in ours:
            if _chain(name, where, chains).kind != "protein":
                raise ValueError(f"{where}: only proteins have templates, and chain {name} is none")
        if ours and theirs and len(ours) != len(theirs):
            raise ValueError(f"{where}: {len(ours)} in chain_id, but {len(theirs)} in template_id")
        force = flag(given["force"], f"{where}, force") if "force" in given else False
        if force != ("threshold" in given):
            raise ValueError(f"{where}: force: true and threshold (Å) go together")
        threshold = distance(given["threshold"], f"{where}, threshold") if force else None
        path = file(given[kind], f"{where}, {kind}", folder)
        templates.append(Template(path, ours, theirs, force, threshold))
    return tuple(templates)


def _strength(given: Mapping[str, Node], where: str) -> tuple[float, bool]:
    """(max_distance in Å, force)."""
    far = (
        distance(given["max_distance"], f"{where}, max_distance")
        if "max_distance" in given
        else _MAX_DISTANCE
    )
    return far, flag(given["force"], f"{where}, force") if "force" in given else False


def _chain(node: Node, where: str, chains: Chains) -> Chain:
    name = text(node, where)
    if name not in chains:
        raise ValueError(f"{where}: there is no chain {shown(name)}, only {listed(chains)}")
    return chains[name]


def _residue(node: Node, where: str, chain: Chain) -> int:
    number = whole(node, where)
    length = len(chain.sequence) or len(chain.ccd) or 1
    if number > length:
        raise ValueError(f"{where}: residue {number} of chain {chain.name}, which has {length}")
    return number


def _atom(node: Node, where: str, chains: Chains) -> tuple[str, int, str]:
    parts = items(node, where)
    if len(parts) != 3:
        raise ValueError(f"{where}: an atom is [chain, residue, atom name]")
    chain = _chain(parts[0], where, chains)
    return chain.name, _residue(parts[1], where, chain), text(parts[2], where)


def _token(node: Node, where: str, chains: Chains) -> Token:
    parts = items(node, where)
    if len(parts) != 2:
        raise ValueError(
            f"{where}: a token is [chain, residue] or, in a ligand, [chain, atom name]"
        )
    chain = _chain(parts[0], where, chains)
    if chain.kind == "ligand":
        return chain.name, text(parts[1], where)
    return chain.name, _residue(parts[1], where, chain)
