"""Tables of a CIF file before they become text or bytes."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np

from foldcp.printable import printable_ascii

# Characters of a value: CIF 1.1 has lines of 2,048, and that of an atom has its chain's name twice.
MAX_TEXT = 900


class Missing(Enum):
    """What a CIF file has in place of a value."""

    UNKNOWN = "?"
    INAPPLICABLE = "."


class Lines(str):
    """ASCII text of several lines, written as it is."""


UNKNOWN = Missing.UNKNOWN
INAPPLICABLE = Missing.INAPPLICABLE

# Texts and whole numbers, or an array of numbers that are written to 0.001; NaN is unknown.
Column = Sequence[str | int | Missing] | np.ndarray
Table = dict[str, Column]
Tables = dict[str, Table]  # by category


def row(**values: str | int | Missing) -> Table:
    """A table of one row."""
    return {name: [value] for name, value in values.items()}


def plain_text(value: str) -> str:
    """Any text as one line of ASCII, truncated to what fits on a line of a CIF file."""
    line = printable_ascii(value)
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 3] + "..."


def or_unknown(value: str) -> str | Missing:
    """A text, or `UNKNOWN` if it is empty."""
    return value or UNKNOWN
