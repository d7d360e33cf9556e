"""What a database's row says of its complex besides the subunits."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from foldcp.complex import DatabaseEntry
from foldcp.datasets.parsing.protein_names import ProteinNames
from foldcp.datasets.parsing.tables import Row

# Column key, in the spellings of the releases -> field of DatabaseEntry.
_TEXTS = {
    "stoichiometry": "stoichiometry",
    "cellline": "cell_line",
    "evidencecode": "evidence",
    "complexconfidence": "confidence",
    "confidence": "confidence",
    "complexcomment": "comment",
    "commentcomplex": "comment",
    "description": "comment",
    "subunitscomment": "subunits_comment",
    "commentmembers": "subunits_comment",
    "diseasecomment": "disease",
    "commentdisease": "disease",
    "disease": "disease",
}
# Column key -> field, of lists separated by `;` (CORUM) and by `|` (Complex Portal).
_LISTS = {
    "synonyms": "synonyms",
    "proteincomplexpurificationmethod": "purification_methods",
    "purificationmethods": "purification_methods",
    "goid": "go_ids",
    "functionsgoid": "go_ids",
    "functionsgogoid": "go_ids",
    "godescription": "go_names",
    "functionsgoname": "go_names",
    "functionsgogoname": "go_names",
    "funcatid": "funcat_ids",
    "fcgsid": "funcat_ids",
    "funcatdescription": "funcat_names",
    "fcgsname": "funcat_names",
    "pubmedid": "pubmed_ids",
    "pmid": "pubmed_ids",
}
_PORTAL_LISTS = {"aliasesforcomplex": "synonyms", "crossreferences": "cross_references"}
# In tables and JSON files of CORUM, and in tables of hu.MAP.
_GENES = ("subunitsgenename", "subunitsswissprotgenename", "genenames")
_PROTEINS = ("subunitsproteinname", "subunitsswissprotproteinname")
_GO_ANNOTATIONS = "goannotations"  # of Complex Portal: `GO:0016514(SWI/SNF complex)|..`
_GO_ANNOTATION = re.compile(r"(GO:\d+)\((.*)\)")
_READ = {*_TEXTS, *_LISTS, *_PORTAL_LISTS, *_GENES, *_PROTEINS, _GO_ANNOTATIONS}


def entry_of(row: Row, known: Collection[str]) -> DatabaseEntry:
    """The entry of a row; `known` are the columns that the complex itself is made from."""
    fields: dict[str, Any] = {}
    for key, name in _TEXTS.items():
        fields[name] = fields.get(name) or row.get(key)
    for columns, separator in ((_LISTS, ";"), (_PORTAL_LISTS, "|")):
        for key, name in columns.items():
            fields[name] = fields.get(name) or _items(row.get(key), separator)
    pairs = map(_GO_ANNOTATION.fullmatch, _items(row.get(_GO_ANNOTATIONS), "|"))
    if annotations := [match for match in pairs if match]:
        fields["go_ids"] = tuple(match[1] for match in annotations)
        fields["go_names"] = tuple(match[2] for match in annotations)
    fields["pubmed_ids"] = tuple(item.removesuffix(".0") for item in fields["pubmed_ids"])
    fields["stoichiometry"] = fields["stoichiometry"].strip("; ") and fields["stoichiometry"]
    others = {key: row.get(key) for key in row.cells if key not in known and key not in _READ}
    others = {key: value for key, value in others.items() if value}
    return DatabaseEntry(
        **fields,
        gene_names=tuple(_genes(row)),
        protein_names=tuple(_proteins(row)),
        other=json.dumps(others, ensure_ascii=False) if others else "",
    )


def subunit_names(row: Row, num_subunits: int) -> list[ProteinNames]:
    """Names of the subunits, in their order; empty where the row does not list one for each."""
    nameless = [""] * num_subunits
    genes = _genes(row)
    proteins = _proteins(row)
    both = zip(
        genes if len(genes) == num_subunits else nameless,
        proteins if len(proteins) == num_subunits else nameless,
        strict=True,
    )
    return [ProteinNames(gene, protein) for gene, protein in both]


def _genes(row: Row) -> list[str]:
    """Gene names in the order of the subunits; hu.MAP separates them by spaces."""
    cell = next((row.get(key) for key in _GENES if row.get(key)), "")
    return _places(cell.split(";") if ";" in cell else cell.split())


def _proteins(row: Row) -> list[str]:
    """Protein names in the order of the subunits."""
    cell = next((row.get(key) for key in _PROTEINS if row.get(key)), "")
    return _places(cell.split(";")) if cell else []


def _places(names: list[str]) -> list[str]:
    stripped = [name.strip() for name in names]
    return ["" if name == "None" else name for name in stripped]


def _items(cell: str, separator: str) -> tuple[str, ...]:
    """The items of a list that are not empty."""
    return tuple(item for item in _places(cell.split(separator)) if item)
