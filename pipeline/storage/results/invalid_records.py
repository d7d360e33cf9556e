"""Rows of the records of an input that cannot be folded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc

from foldcp.complex import InvalidComplex
from foldcp.pipeline.inputs.content_key import KEY_LENGTH
from foldcp.pipeline.storage.results.provenance import Provenance
from foldcp.pipeline.storage.results.result_rows import (
    TableRows,
    one_line_notes,
    source_columns,
)
from foldcp.pipeline.storage.store import Store
from foldcp.pipeline.storage.tables import read_table


def invalid_rows(records: Sequence[InvalidComplex], provenance: Provenance) -> dict[str, TableRows]:
    """key -> rows, of invalid records.

    The key is the hash of the record's name and position in the input, so that another reason
    replaces the first.
    """
    rows: dict[str, TableRows] = {}
    for record in records:
        key = _hash(["invalid", record.name, record.index])
        row = {
            "key": key,
            "name": record.name,
            "title": record.title,
            "organism": record.organism,
            "source": record.source,
            "outcome": "invalid",
            "reason": record.reason,
            "notes": one_line_notes(record.notes),
            "settings_hash": provenance.settings_hash,
            "missing_accessions": list(record.missing_accessions),
            **source_columns(record.entry),
            **provenance.columns,
        }
        rows[key] = {"complexes": [row]}
    return rows


def sync_invalid(store: Store, records: Sequence[InvalidComplex], provenance: Provenance) -> None:
    """Store one row of each invalid record, with the present reason and notes.

    Those that are gone are removed by `Store.mark_stale`.
    """
    stored = _stored_invalid(store)
    changed = {}
    for key, rows in invalid_rows(records, provenance).items():
        row = rows["complexes"][0]
        if stored.get(key) != (row["reason"], row["notes"]):
            changed[key] = rows
    store.put_many(changed)


def _stored_invalid(store: Store) -> dict[str, tuple[str, list[str]]]:
    """key -> (reason, notes), of the invalid records in the folder."""
    rows = read_table(store.root, "complexes").filter(pc.field("outcome") == "invalid")
    columns = ["key", "reason", "notes"]
    return {row["key"]: (row["reason"], row["notes"]) for row in rows.select(columns).to_pylist()}


def _hash(content: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:KEY_LENGTH]
