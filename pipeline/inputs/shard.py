"""Shards: parts of a database that separate runs score, each into a folder of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_SHARDS = 100_000
PATTERN = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` of `count`, from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_shard(text: str) -> Shard | None:
    """The shard that `--shard` names, such as 3/8; None for an empty text, which means everything.

    Raises ValueError for anything else.
    """
    if not text:
        return None
    match = PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"--shard {text}: expected I/N, such as 3/8 for the third of eight")
    number, count = map(int, match.groups())
    if not 1 <= number <= count <= MAX_SHARDS:
        raise ValueError(
            f"--shard {text}: expected I/N with I from 1 to N, and N up to {MAX_SHARDS:,}"
        )
    return Shard(number, count)
