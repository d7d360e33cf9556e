"""Tables of a run as DataFrames, and the warnings that every report of them begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foldcp.checkpoint.identity import weights_warning
from foldcp.pipeline.storage.run_folder import read_run
from foldcp.pipeline.storage.tables import count_stale, read_fresh

DataFrame = Any  # of pandas, whose columns have no static types


def fresh_rows(out: Path | str, table: str) -> DataFrame:
    """The rows of the present input and settings."""
    return read_fresh(out, table).to_pandas()


def to_records(frame: DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries, with None for what is missing."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def checkpoint_warning(out: Path | str) -> str:
    """A warning about random weights and those of the demo; empty for others."""
    run = read_run(out)
    weights = run["checkpoint"] if run["untrained"] else run["identity"].get("checkpoint", "")
    warning = weights_warning(weights)
    if not warning:
        return ""
    kind = "UNTRAINED" if run["untrained"] else "DEMO"
    return f"{kind}: {warning}."


def stale_warning(out: Path | str) -> str:
    """A note on results left out, as the input or the settings have changed since; empty
    without any.
    """
    count = count_stale(out)
    if not count:
        return ""
    noun = "result" if count == 1 else "results"
    return f"{count} stale {noun}, of an earlier input or other settings, left out."
