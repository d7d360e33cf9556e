"""A column of a table, and the columns of common types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Type = Literal[
    "string",
    "list<string>",
    "list<int32>",
    "list<float64>",
    "int64",
    "float32",
    "float64",
    "bool",
    "timestamp",
]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    `unit` is empty for values without one, such as names. `default` is the value in rows that do
    not give one.
    """

    name: str
    type: Type
    description: str
    unit: str = ""
    nullable: bool = False
    default: str | bool | tuple[str, ...] | None = None


def score(name: str, description: str, unit: str = "0..1, higher is better") -> Column:
    """A score; null where it does not apply."""
    return Column(name, "float32", description, unit, nullable=True)


def count(name: str, description: str, nullable: bool = False) -> Column:
    """A number of things."""
    return Column(name, "int64", description, "count", nullable)


def seconds(name: str, description: str) -> Column:
    """A time."""
    return Column(name, "float64", description, "s", nullable=True)


def bytes_(name: str, description: str) -> Column:
    """An amount of memory."""
    return Column(name, "int64", description, "B", nullable=True)


def names(name: str, description: str) -> Column:
    """A list of texts, empty where there are none."""
    return Column(name, "list<string>", description, default=())


def text(name: str, description: str) -> Column:
    """A text, empty where there is none."""
    return Column(name, "string", description, default="")
