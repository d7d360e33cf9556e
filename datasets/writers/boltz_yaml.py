"""Writer of Boltz's YAML."""

from __future__ import annotations

from typing import Any

import yaml

from foldcp.complex import Chain, Complex, Contact, Pocket, Template
from foldcp.datasets.parsing.text_files import join_names
from foldcp.datasets.writers.written import (
    Written,
    check_alignments,
    common_notes,
    runs_of_copies,
    without_alignment,
)
from foldcp.files import EmbeddedFile, FileSource

_PDB_SUFFIXES = (".pdb", ".ent", ".pdb.gz", ".ent.gz")
Tree = dict[str, Any]


def boltz_yaml(complex: Complex, stem: str) -> Written:
    """The complex as the YAML of a file that is called `stem`, which becomes its name.

    Alignments and templates are named by path; those inside another file are to be written beside
    it. Raises ValueError for a template whose residues are matched one by one, and for the
    alignment of a whole complex.
    """
    check_alignments(complex)
    files: dict[str, FileSource] = {}
    notes = common_notes(complex)
    if stem != complex.name:
        notes.append("a name that cannot be that of a file is changed")
    if without := without_alignment(complex):
        notes.append(
            "proteins without an alignment are written without one, which Boltz then has to search"
        )
    if any(chain.paired_msa for chain in complex.chains):
        notes.append("paired alignments are left out")
    tree: Tree = {"version": 1}
    tree["sequences"] = [
        {first.kind: _molecule(first, names, stem, files, first.name in without)}
        for first, names in runs_of_copies(complex.chains, {})
    ]
    bonds = [{"bond": {"atom1": [*b.atom1], "atom2": [*b.atom2]}} for b in complex.bonds]
    pockets = [{"pocket": _pocket(pocket)} for pocket in complex.pockets]
    contacts = [{"contact": _contact(contact)} for contact in complex.contacts]
    if constraints := [*bonds, *pockets, *contacts]:
        tree["constraints"] = constraints
    if complex.templates:
        tree["templates"] = [
            _template(template, f"{stem}-template{number}", files, complex.name)
            for number, template in enumerate(complex.templates, start=1)
        ]
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=1_000_000)
    return Written(text, files, tuple(notes))


def _molecule(
    chain: Chain, names: list[str], stem: str, files: dict[str, FileSource], is_searched: bool
) -> Tree:
    entry: Tree = {"id": names if len(names) > 1 else names[0]}
    if chain.kind == "ligand":
        if chain.smiles:
            return {**entry, "smiles": chain.smiles}
        codes = list(chain.ccd)
        return {**entry, "ccd": codes if len(codes) > 1 else codes[0]}
    entry["sequence"] = chain.sequence
    if chain.kind == "protein" and not is_searched:
        msa = chain.msa
        entry["msa"] = _file(msa, f"{stem}-{len(files) + 1}", files) if msa else "empty"
    if chain.cyclic:
        entry["cyclic"] = True
    if chain.modifications:
        entry["modifications"] = [
            {"position": position, "ccd": code} for position, code in chain.modifications
        ]
    return entry


def _file(source: FileSource, stem: str, files: dict[str, FileSource]) -> str:
    """How the YAML names a file: by its path, or by the name that it gets beside it."""
    if not isinstance(source, EmbeddedFile):
        return str(source.resolve())
    known = {other: name for name, other in files.items()}
    name = known.get(source, stem + source.suffix)
    files[name] = source
    return name


def _pocket(pocket: Pocket) -> Tree:
    return {
        "binder": pocket.binder,
        "contacts": [list(token) for token in pocket.contacts],
        **_limit(pocket),
    }


def _contact(contact: Contact) -> Tree:
    return {"token1": list(contact.token1), "token2": list(contact.token2), **_limit(contact)}


def _limit(constraint: Pocket | Contact) -> Tree:
    limit: Tree = {"max_distance": constraint.max_distance}
    return {**limit, "force": True} if constraint.force else limit


def _template(template: Template, stem: str, files: dict[str, FileSource], complex: str) -> Tree:
    if template.residues:
        raise ValueError(
            f"complex {complex}: the residues that the template {template.path} matches cannot be "
            f"said in Boltz's YAML (chains {join_names(template.chains)})"
        )
    kind = "pdb" if template.path.name.lower().endswith(_PDB_SUFFIXES) else "cif"
    entry: Tree = {kind: _file(template.path, stem, files)}
    if template.chains:
        entry["chain_id"] = list(template.chains)
    if template.template_chains:
        entry["template_id"] = list(template.template_chains)
    if template.force:
        entry["force"] = True
        entry["threshold"] = template.threshold
    return entry
