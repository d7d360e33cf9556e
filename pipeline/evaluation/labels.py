"""Known positives and negatives: names of complexes, or pairs of accessions, in a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from foldcp.datasets.parsing.text_files import read_text

Label = tuple[str, ...]  # (name of a complex,) or two accessions in the order of the alphabet


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a file, each once; all name complexes, or all name pairs of proteins."""

    path: Path
    labels: tuple[Label, ...]

    @property
    def are_pairs(self) -> bool:
        """Whether the file lists pairs of accessions."""
        return len(self.labels[0]) == 2


def read_labels(path: Path) -> Labels:
    """The labels of a file: a name of a complex, or two accessions, on each line.

    Accessions are separated by a tab, a comma, a semicolon, or white space; names of complexes may
    hold spaces if no line has a separator. Lines that begin with # are left out. Raises ValueError
    naming the file, and the line of a label that does not fit.
    """
    lines = [(number, line) for number, line in _lines(path)]
    if not lines:
        raise ValueError(f"{path}: no names of complexes and no pairs of accessions")
    separator = _separator([line for _, line in lines])
    labels: dict[Label, None] = {}
    for number, line in lines:
        parts = [part.strip() for part in re.split(separator, line)] if separator else [line]
        if len(parts) > 2 or not all(parts):
            raise ValueError(
                f"{path}: line {number}: {line[:80]!r}; expected the name of a complex or two "
                "accessions"
            )
        labels[tuple(sorted(parts))] = None
    if len({len(label) for label in labels}) > 1:
        raise ValueError(f"{path}: has both names of complexes and pairs of accessions")
    return Labels(path, tuple(labels))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip() and not line.startswith("#"):
            yield number, line.strip()


def _separator(lines: list[str]) -> str:
    """A pattern of what separates two accessions; empty where lines are names."""
    for mark in ("\t", ",", ";"):
        if any(mark in line for line in lines):
            return mark
    return r"\s+" if all(len(line.split()) == 2 for line in lines) else ""
