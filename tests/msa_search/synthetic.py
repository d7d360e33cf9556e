"""Sequences with random homologs, as queries and as a database to search."""

from __future__ import annotations

import random
from pathlib import Path

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def sequences(count: int, seed: int = 1) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(LETTERS, k=draw.randint(60, 90))) for _ in range(count)]


def write_queries(path: Path, queries: list[str]) -> Path:
    path.write_text("".join(f">p{i}\n{text}\n" for i, text in enumerate(queries)))
    return path


def write_homologs(path: Path, queries: list[str], count: int = 12, seed: int = 2) -> Path:
    """`count` relatives of each query, of organisms 9606, 9607 and so on; some with insertions."""
    draw = random.Random(seed)
    with path.open("w") as file:
        for i, query in enumerate(queries):
            for k in range(count):
                kept = 1 - 0.4 * k / count
                text = "".join(c if draw.random() < kept else draw.choice(LETTERS) for c in query)
                if k % 4 == 1:
                    text = text[:30] + "GSG" + text[30:]
                file.write(f">tr|Q{i}{k:04d}|Q{i}{k:04d}_X Relative OS=Any OX={9606 + k}\n{text}\n")
    return path
