"""Random Boltz YAML: mostly valid in form, with values at and beyond the limits."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import yaml

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
NAMES = ("A", "B", "C", "D", "E", "AA", "L1", "1", "NO", "é", "a b", "x" * 50)
CODES = ("ATP", "MG", "NAG", "MSE", "SEP", "ZN", "017", "hem")
ODD_CODES = ("HOH", "UNL", "XXXX9", "", "A")
SMILES = ("CC(=O)O", "c1ccccc1", "[Mg+2]", "C[C@H](N)C(=O)O", "N", "CC.O")
ODD_SMILES = ("[H][H]", "C1CC", "*", "CC name", "", "[He]", "C" * 30, "[Xx]")
ODD: tuple[Any, ...] = (
    "",
    "~",
    None,
    [],
    {},
    0,
    -1,
    3.5,
    True,
    "x" * 300,
    ["A"],
    {"a": "b"},
    [[["A"]]],
    "0x10",
    "nan",
    "1e400",
    10**30,
)


def make_yaml(rng: random.Random) -> bytes:
    """A file in block or flow style, or JSON, as PyYAML or the standard library writes it."""
    tree = _file(rng)
    for _ in range(rng.choice((0, 0, 0, 0, 1, 2))):
        _spoil(rng, tree)
    style = rng.randrange(4)
    if style == 0:
        return json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode()
    return yaml.safe_dump(
        tree, default_flow_style=style == 1, allow_unicode=True, width=60
    ).encode()


def _pick(rng: random.Random, usual: Sequence[Any], odd: Sequence[Any]) -> Any:
    """One of the usual values, now and then an odd one."""
    return rng.choice(odd if rng.random() < 0.04 else usual)


def _file(rng: random.Random) -> dict[str, Any]:
    names = rng.sample(NAMES, rng.choice((1, 1, 2, 2, 3, 5)))
    entries = []
    chains = []
    rest = list(names)
    while rest:
        ids = rest[: rng.choice((1, 1, 2))]
        rest = rest[2 if len(rest) > 2 else 1 :]
        entry, length = _entry(rng, ids[0] if len(ids) == 1 and rng.random() < 0.7 else ids)
        entries.append(entry)
        chains += [(name, length) for name in ids]
    tree: dict[str, Any] = {"version": 1, "sequences": entries}
    if rng.random() < 0.5:
        tree["constraints"] = [_constraint(rng, chains) for _ in range(rng.randint(0, 3))]
    if rng.random() < 0.2:
        tree["templates"] = [_template(rng, chains)]
    return tree


def _entry(rng: random.Random, ids: Any) -> tuple[dict[str, Any], int]:
    """An entry of `sequences`, and the number of its residues, 0 for a ligand."""
    kind = rng.choice(("protein", "protein", "protein", "dna", "rna", "ligand", "ligand"))
    if kind == "ligand":
        if rng.random() < 0.5:
            return {kind: {"id": ids, "smiles": _pick(rng, SMILES, ODD_SMILES)}}, 0
        codes = [_pick(rng, CODES, ODD_CODES) for _ in range(rng.choice((1, 1, 2)))]
        return {kind: {"id": ids, "ccd": codes if rng.random() < 0.5 else codes[0]}}, 0
    letters = {"protein": LETTERS + "XU", "dna": "ACGTN", "rna": "ACGUN"}[kind]
    sequence = "".join(rng.choices(letters, k=rng.choice((1, 2, 3, 4, 8, 12))))
    value: dict[str, Any] = {"id": ids, "sequence": sequence}
    if kind == "protein":
        value["msa"] = _pick(rng, ("empty",), ("a.a3m", "./a.a3m", "no.a3m", None))
    if rng.random() < 0.2:
        value["cyclic"] = rng.random() < 0.7
    if rng.random() < 0.2:
        position = _pick(rng, range(1, len(sequence) + 1), (0, len(sequence) + 1))
        value["modifications"] = [
            {
                "position": position,
                "ccd": _pick(rng, ("MSE", "SEP"), (*CODES, *ODD_CODES)),
            }
        ]
    return {kind: value}, len(sequence)


def _constraint(rng: random.Random, chains: list[tuple[str, int]]) -> dict[str, Any]:
    kind = rng.choice(("bond", "pocket", "contact"))
    if kind == "bond":
        return {kind: {"atom1": _atom(rng, chains), "atom2": _atom(rng, chains)}}
    more: dict[str, Any] = {}
    if rng.random() < 0.4:
        more["max_distance"] = _pick(rng, (4, 6.0, 20), (0, 0.5, -3, 1e9))
    if rng.random() < 0.3:
        more["force"] = rng.random() < 0.7
    if kind == "pocket":
        touched = [_token(rng, chains) for _ in range(rng.randint(0, 3))]
        return {kind: {"binder": rng.choice(chains)[0], "contacts": touched, **more}}
    return {kind: {"token1": _token(rng, chains), "token2": _token(rng, chains), **more}}


def _atom(rng: random.Random, chains: list[tuple[str, int]]) -> list[Any]:
    name, length = rng.choice(chains)
    return [
        name,
        rng.randint(1, max(1, length)),
        rng.choice(("CA", "N", "C1", "O4", "SG", "MG", "P", "XX")),
    ]


def _token(rng: random.Random, chains: list[tuple[str, int]]) -> list[Any]:
    name, length = rng.choice(chains)
    return [
        name,
        rng.randint(1, length) if length else _pick(rng, ("C1", "MG", "PG", "N"), (1, "XX")),
    ]


def _template(rng: random.Random, chains: list[tuple[str, int]]) -> dict[str, Any]:
    template: dict[str, Any] = {
        rng.choice(("cif", "pdb")): rng.choice(("t.cif", "t.cif", "no.cif"))
    }
    if rng.random() < 0.5:
        template["chain_id"] = rng.choice(chains)[0]
    if rng.random() < 0.3:
        template["template_id"] = rng.choice(("A", "B"))
    if rng.random() < 0.3:
        template |= {"force": True, "threshold": rng.choice((2, 0, -1))}
    return template


def _spoil(rng: random.Random, tree: Any) -> None:
    """Something odd in place of one value, somewhere in the tree; or a key that should not be
    there, or is not.
    """
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = rng.choice(keys)
        if not isinstance(node[key], dict | list) or rng.random() < 0.1:
            break
        node = node[key]
    variant = rng.randrange(4)
    if variant == 0 and isinstance(node, dict):
        node[rng.choice(("extra", "id", "sequence", "msa", "ccd", 3))] = node.pop(key)
    elif variant == 1:
        del node[key]
    else:
        node[key] = deepcopy(rng.choice(ODD))
