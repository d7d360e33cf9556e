"""Results of an earlier input or of other settings: what of a run's folder does not belong to
its present task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foldcp.pipeline.storage.manifest import CommitRecord


@dataclass(frozen=True, slots=True)
class Present:
    """What an input asks for now.

    `keys` are those of the results of every record that was looked at, the invalid ones among
    them. `unselected` are names of records that this invocation leaves out without a look, as they
    are of another organism. `settings` is the digest of the settings that results hang on.
    """

    keys: frozenset[str]
    unselected: frozenset[str] = frozenset()
    settings: str = ""


def find_stale(units: Mapping[str, CommitRecord], present: Present) -> set[str]:
    """Results of complexes that the present input and settings do not ask for.

    A result of a record that is left out this time is kept, if it was made with the present
    settings: whether its content has changed is seen when the record is looked at again.
    """
    return {
        unit
        for unit, receipt in units.items()
        if _is_result(receipt) and unit not in present.keys and not _is_left_out(receipt, present)
    }


def find_vanished(units: Mapping[str, CommitRecord], present: Present) -> set[str]:
    """Invalid records that the present input does not hold, or that have become complexes."""
    return {
        unit
        for unit, receipt in units.items()
        if receipt.outcome == "invalid"
        and unit not in present.keys
        and receipt.name not in present.unselected
    }


def _is_result(receipt: CommitRecord) -> bool:
    return receipt.kind == "complex" and receipt.outcome != "invalid"


def _is_left_out(receipt: CommitRecord, present: Present) -> bool:
    return receipt.name in present.unselected and receipt.settings == present.settings
