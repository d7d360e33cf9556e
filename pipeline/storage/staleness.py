"""Stale results: those of an earlier input or of other settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from foldcp.pipeline.storage.commits.record import LOST, CommitRecord, is_intact


@dataclass(frozen=True, slots=True)
class Present:
    """The results that an input asks for now.

    `keys` are those of the results of every record that was looked at, the invalid ones among
    them. `unselected` are names of records that this invocation leaves out without a look, as they
    are of another organism. `settings_hash` is the hash of the settings that change results.
    """

    keys: frozenset[str]
    unselected: frozenset[str] = frozenset()
    settings_hash: str = ""


def find_stale(commits: Mapping[str, CommitRecord], present: Present) -> set[str]:
    """Keys of results that the present input and settings do not ask for.

    A result of a record that is left out this time is kept, if it was computed with the present
    settings: whether its content has changed is seen when the record is looked at again.
    """
    return {
        key
        for key, record in commits.items()
        if _is_result(record) and key not in present.keys and not _is_unselected(record, present)
    }


def find_vanished(commits: Mapping[str, CommitRecord], present: Present) -> set[str]:
    """Keys of invalid records that the present input does not hold, or that have become valid; and
    of lost results that it does not ask for.
    """
    return {
        key
        for key, record in commits.items()
        if record.outcome in ("invalid", LOST)
        and key not in present.keys
        and record.name not in present.unselected
    }


def release_shared_paths(
    root: Path, commits: Mapping[str, CommitRecord], stale: Collection[str]
) -> tuple[dict[str, CommitRecord], set[str]]:
    """Release the files of stale results whose paths do not hold the key, so that the results in
    their place may write them; take them back where a result counts again.

    Returns the changed records, and the keys of results that have lost such files meanwhile.
    """
    updates = {}
    lost = set()
    for key, record in commits.items():
        if key in stale:
            own = tuple(file for file in record.files if key in file.path)
            shared = tuple(file for file in record.files if key not in file.path)
            if shared:
                updates[key] = replace(record, files=own, released=shared)
        elif record.released:
            if not all(is_intact(root, file, verify=True) for file in record.released):
                lost.add(key)
            updates[key] = replace(record, files=record.files + record.released, released=())
    return updates, lost


def _is_result(record: CommitRecord) -> bool:
    return record.kind == "complex" and record.outcome not in ("invalid", LOST)


def _is_unselected(record: CommitRecord, present: Present) -> bool:
    return record.name in present.unselected and record.settings_hash == present.settings_hash
