"""Provenance of results: the weights, and how a prediction was computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Provenance:
    """The origin of results.

    `checkpoint` is the identity of the weights. `seed`, `num_ranks`, `precision`, `max_rows` (the
    most MSA rows of the complex), `parallel_samples` (sampled at once) and `fallbacks` (what was
    changed as memory ran out) are those of a prediction. `settings_hash` is the hash of the
    settings that change results; `repeated` are names that several complexes of the input share.
    """

    checkpoint: str
    untrained: bool
    seed: int | None = None
    num_ranks: int | None = None
    precision: str | None = None
    max_rows: int | None = None
    parallel_samples: int | None = None
    fallbacks: tuple[str, ...] = ()
    settings_hash: str = ""
    repeated: frozenset[str] = frozenset()

    @property
    def columns(self) -> dict[str, Any]:
        """Columns of every row of a result."""
        return {"checkpoint": self.checkpoint, "untrained": self.untrained}
