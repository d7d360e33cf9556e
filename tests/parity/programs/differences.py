"""Largest differences between a program's scores and ours, over all cases."""

from __future__ import annotations

from tests.parity.support.table import Row, check


class Differences:
    """Differences of one program's scores, by the name of the score."""

    def __init__(self, program: str, cases: str) -> None:
        self.program = program
        self.cases = cases
        self._largest: dict[str, float] = {}
        self._count: dict[str, int] = {}

    def add(self, score: str, ours: float | None, theirs: float) -> None:
        """One pair of values; NaN of theirs is null here."""
        is_null = theirs != theirs
        assert (ours is None) == is_null, f"{score}: {ours}, {theirs}"
        difference = 0.0 if ours is None else abs(ours - theirs)
        self._largest[score] = max(self._largest.get(score, 0.0), difference)
        self._count[score] = self._count.get(score, 0) + 1

    def check(self, allowed: float, larger: dict[str, float] | None = None) -> None:
        """Into the table of comparisons; fails for a difference above `allowed`, or above that of a
        score in `larger`.
        """
        limits = larger or {}
        check(
            Row(
                f"{self.program}: {score}",
                f"{self.cases}, {self._count[score]} values",
                1,
                largest,
                limits.get(score, allowed),
            )
            for score, largest in self._largest.items()
        )
