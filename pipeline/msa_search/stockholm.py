"""Stockholm alignments, as rows of an a3m."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_GAPS = b"-.~_"


class HeadedRow(NamedTuple):
    """A row as in a3m (insertions in lower case), and the header of its sequence."""

    header: str
    text: str


def parse_stockholm(data: bytes, what: str) -> list[HeadedRow]:
    """The sequences relative to the first, whose residues are the columns.

    Raises ValueError that begins with `what` for text that is no such alignment.
    """
    parts: dict[str, list[bytes]] = {}
    descriptions: dict[str, str] = {}
    for number, line in enumerate(data.splitlines(), 1):
        words = line.split()
        if line.startswith(b"#=GS"):
            fields = line.decode("utf-8", errors="replace").split(maxsplit=3)
            if len(fields) == 4 and fields[2] == "DE":
                descriptions[fields[1]] = fields[3]
        elif words and not line.startswith((b"#", b"//")):
            if len(words) != 2:
                raise ValueError(f"{what}: line {number} is not a name and a row of an alignment")
            parts.setdefault(words[0].decode("utf-8", errors="replace"), []).append(words[1])
    texts = {name: b"".join(pieces) for name, pieces in parts.items()}
    if not texts:
        return []
    query = np.frombuffer(next(iter(texts.values())), dtype=np.uint8)
    is_column = ~np.isin(query, list(_GAPS))
    return [
        HeadedRow(
            f"{name} {descriptions.get(name, '')}".strip(),
            _relative(text, is_column, f"{what}: {name}"),
        )
        for name, text in texts.items()
    ]


def _relative(text: bytes, is_column: np.ndarray, what: str) -> str:
    if len(text) != len(is_column):
        raise ValueError(f"{what} has {len(text)} columns, the first sequence {len(is_column)}")
    upper = np.frombuffer(text.upper(), dtype=np.uint8)
    is_gap = np.isin(upper, list(_GAPS))
    in_columns = np.where(is_gap, ord("-"), upper)
    letters = np.where(is_column, in_columns, np.frombuffer(text.lower(), dtype=np.uint8))
    return letters[is_column | ~is_gap].astype(np.uint8).tobytes().decode("latin-1")
