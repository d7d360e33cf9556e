"""Writer of AlphaFold 3's JSON."""

from __future__ import annotations

import json
import re
from typing import Any

from foldcp.complex import Bond, Chain, Complex, Template
from foldcp.datasets.parsing.text_files import join_names
from foldcp.datasets.writers.written import (
    Written,
    check_alignments,
    common_notes,
    runs_of_copies,
    without_alignment,
)
from foldcp.files import EmbeddedFile, FileSource, read_file

_VERSION = 2  # the first with paths of alignments and templates
_SEED = 1  # there must be one
_NAME = re.compile(r"[A-Z]+")
_ALIGNMENTS = (".a3m", ".a3m.gz", ".a3m.xz")
_STRUCTURES = (".cif", ".cif.gz")
Tree = dict[str, Any]


def alphafold3_json(complex: Complex) -> Written:
    """The complex as a JSON text.

    Alignments and templates are named by path; those inside another file are written into it.
    Raises ValueError for what the format cannot say: pockets, contacts, cyclic chains, templates
    that are forced or have no residues matched, alignments as CSV, bonds of two polymers or of a
    SMILES, and chain names that are not upper-case letters.
    """
    check_alignments(complex)
    try:
        _check(complex)
        extra = {chain.name: _templates_of(complex, chain) for chain in complex.chains}
        sequences = [
            {first.kind: _molecule(first, names, extra[first.name])}
            for first, names in runs_of_copies(complex.chains, extra)
        ]
    except ValueError as error:
        raise ValueError(f"complex {complex.name}: {error}") from error
    notes = common_notes(complex)
    if without_alignment(complex):
        notes.append(
            "proteins without an alignment are written without one; AlphaFold 3 searches for them"
        )
    tree: Tree = {"name": complex.name, "modelSeeds": [_SEED], "sequences": sequences}
    if complex.bonds:
        tree["bondedAtomPairs"] = [[list(b.atom1), list(b.atom2)] for b in complex.bonds]
    tree["dialect"] = "alphafold3"
    tree["version"] = _VERSION
    return Written(json.dumps(tree, indent=1, ensure_ascii=False) + "\n", {}, tuple(notes))


def _check(complex: Complex) -> None:
    if complex.pockets or complex.contacts:
        raise ValueError("AlphaFold 3's JSON has no pockets and no contacts")
    for chain in complex.chains:
        if not _NAME.fullmatch(chain.name):
            raise ValueError(
                f"chain {chain.name!r}: AlphaFold 3 names chains by upper-case letters"
            )
        if chain.cyclic:
            raise ValueError(f"chain {chain.name}: AlphaFold 3's JSON has no cyclic chains")
    for bond in complex.bonds:
        _check_bond(bond, {chain.name: chain for chain in complex.chains})


def _check_bond(bond: Bond, chains: dict[str, Chain]) -> None:
    ends = [chains[bond.atom1[0]], chains[bond.atom2[0]]]
    names = join_names(end.name for end in ends)
    if any(end.smiles for end in ends):
        raise ValueError(f"bond of chains {names}: AlphaFold 3 binds no atoms of a SMILES")
    if all(end.kind != "ligand" for end in ends):
        raise ValueError(f"bond of chains {names}: AlphaFold 3 binds no two polymers")


def _templates_of(complex: Complex, chain: Chain) -> tuple[Template, ...]:
    """The templates of a chain."""
    if chain.kind != "protein":
        return ()
    return tuple(t for t in complex.templates if not t.chains or chain.name in t.chains)


def _molecule(chain: Chain, names: list[str], templates: tuple[Template, ...]) -> Tree:
    entry: Tree = {"id": names if len(names) > 1 else names[0]}
    if chain.kind == "ligand":
        if chain.smiles:
            return {**entry, "smiles": chain.smiles}
        return {**entry, "ccdCodes": list(chain.ccd)}
    entry["sequence"] = chain.sequence
    keys = ("modificationType", "basePosition")
    if chain.kind == "protein":
        keys = ("ptmType", "ptmPosition")
    if chain.modifications:
        entry["modifications"] = [
            {keys[0]: code, keys[1]: position} for position, code in chain.modifications
        ]
    if chain.kind == "protein":
        if chain.msa or chain.paired_msa or chain.single_sequence:
            entry |= _alignment(chain.msa, "unpairedMsa", chain.name)
            entry |= _alignment(chain.paired_msa, "pairedMsa", chain.name)
        entry["templates"] = [_template(template) for template in templates]
    return entry


def _alignment(source: FileSource | None, key: str, chain: str) -> Tree:
    if source is None:
        return {key: ""}
    if not source.name.lower().endswith(_ALIGNMENTS):
        raise ValueError(f"chain {chain}: AlphaFold 3 reads alignments as a3m, not {source}")
    return _file(source, key, f"{key}Path")


def _template(template: Template) -> Tree:
    what = f"template {template.path}"
    if template.force:
        raise ValueError(f"{what}: AlphaFold 3's JSON has no forced templates")
    if not template.residues:
        raise ValueError(f"{what}: AlphaFold 3 wants the residues that match, one by one")
    if template.template_chains:
        raise ValueError(f"{what}: AlphaFold 3 wants a file of one chain, not names of chains")
    if not template.path.name.lower().endswith(_STRUCTURES):
        raise ValueError(f"{what}: AlphaFold 3 reads templates as mmCIF")
    return {
        **_file(template.path, "mmcif", "mmcifPath"),
        "queryIndices": [number - 1 for number, _ in template.residues],
        "templateIndices": [number - 1 for _, number in template.residues],
    }


def _file(source: FileSource, inside: str, by_path: str) -> Tree:
    if isinstance(source, EmbeddedFile):
        return {inside: read_file(source).data.decode()}
    return {by_path: str(source.resolve())}
