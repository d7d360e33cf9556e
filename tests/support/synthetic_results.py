"""Synthetic results for the tests of the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foldcp.pipeline.storage.filesystem import Content
from foldcp.pipeline.storage.run_folder import RunInfo
from foldcp.pipeline.storage.schemas import INTERFACE_SCORES
from foldcp.pipeline.storage.store import Store
from foldcp.pipeline.storage.tables import read_table

INFO = RunInfo(
    identity={"checkpoint": "abc"},
    command="foldcp score demo.tsv",
    input="demo.tsv",
    checkpoint="untrained:tiny",
    untrained=True,
    settings={"model": {"samples": 1}},
    versions={"foldcp": "0.1.0"},
)
RESULTS = ["complexes", "interfaces"]
# A row of a pair of chains that has no score.
NO_SCORES: dict[str, Any] = {score.name: None for score in INTERFACE_SCORES}
NO_SCORES |= {"interface_residues_a": "", "interface_residues_b": ""}
Rows = dict[str, list[dict[str, Any]]]


@contextmanager
def finishing(store: Store) -> Iterator[Store]:
    """Close the store at the end of the block, as interrupted if the block raises."""
    try:
        yield store
    except BaseException:
        store.close("interrupted")
        raise
    store.close()


def result(key: str, outcome: str) -> tuple[Rows, dict[str, Content]]:
    """Rows and files of a complex of two chains and two samples, or of one that failed."""
    base = {
        "key": key,
        "name": f"name of {key}",
        "checkpoint": "untrained:tiny",
        "untrained": True,
    }
    about = {
        **base,
        "title": "",
        "organism": "",
        "source": "",
        "outcome": outcome,
        "reason": "",
        "notes": [f"msa: no alignment for {key}", "stoichiometry: not given; one copy"],
        "settings_hash": "s1",
    }
    if outcome != "done":
        return {"complexes": [about | {"reason": "no memory"}]}, {}
    ends = [("A", "B"), ("B", "A")]
    rows: Rows = {
        "complexes": [about | {"sample": s, "ptm": len(key) / 7 + s / 9} for s in range(2)],
        "interfaces": [
            base
            | {
                "sample": s,
                "chain_a": a,
                "chain_b": b,
                **_chain_columns("a", a),
                **_chain_columns("b", b),
            }
            | {"num_contacts": 3 + s, "iptm": s / 3, "interface_plddt": float("nan")}
            for s in range(2)
            for a, b in ends
        ],
    }
    files: dict[str, Content] = {
        f"structures/{key}/0.cif": b"first " * 9,
        f"structures/{key}/1.cif": lambda path: path.write_text(f"second of {key}") and None,
    }
    return rows, files


def _chain_columns(end: str, chain: str) -> dict[str, Any]:
    columns = {
        "chain_index": "AB".index(chain),
        "molecule_type": "protein",
        "entity": 1,
        "num_residues": 9,
        "accession": "P1" if chain == "A" else "",
        "gene": "",
    }
    return {f"{name}_{end}": value for name, value in columns.items()}


ATTEMPT = {
    "key": "k1",
    "name": "name of k1",
    "attempt": 1,
    "outcome": "done",
    "reason": "",
    "fallbacks": "",
}


def tables(out: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: read_table(out, name).to_pylist() for name in RESULTS}
