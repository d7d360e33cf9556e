"""Mutations: bytes, lines and cells of a valid input, changed at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

# What tends to upset a reader: control characters, numbers out of range, and the marks that formats
# give a meaning.
TOKENS = (
    b"", b"\x00", b"\xff", b"\xc3", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\r\n", b"\n\n",
    b"\t", b"\t\t\t\t", b" ", b"\xc2\x85", b"\xe2\x80\xa8", b'"', b"'", b'""', b",", b";",
    b":", b"|", b"#", b">", b"-",
    b"*", b"(", b")", b"[", b"]", b"{", b"}", b"[[", b"&a ", b"*a", b"<<: ", b"? ", b"!!int ",
    b"|\n", b">\n", b"---\n",
    b"~", b"~/", b"~nobody/", b"../", b"/", b".", b"=", b"0", b"-1", b"1", b"1.0", b"1001",
    b"99999", b"2147483648",
    b"-9223372036854775809", b"9" * 40, b"9" * 5_000, b"1e999", b"nan", b"inf", b"None",
    b"null", b"true", b"data_",
    b"loop_\n", b"_atom_site.id\n", b"ATOM  ", b"ENDMDL\n", b"MODEL ", b"SEQRES ", b"A" * 200,
    b"\xf0\x9f\xa7\xac",
)  # fmt: skip
SEPARATORS = (b"\t", b",", b";", b"|", b" ", b":", b"\n")

Mutation = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def mutated(rng: random.Random, seeds: Sequence[bytes], longest: int = 200_000) -> bytes:
    """One of the seeds after one to six mutations, most often one or two; no longer than
    `longest` bytes.
    """
    data = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 6))):
        data = rng.choice(MUTATIONS)(rng, data, seeds)[:longest]
    return data


def _span(rng: random.Random, length: int) -> tuple[int, int]:
    """A random part of so many bytes, mostly short."""
    start = rng.randint(0, length)
    return start, min(length, start + rng.choice((1, 1, 2, 4, 16, 64, 1_000)))


def _flip(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8)) if data else 0):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _insert(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, _end = _span(rng, len(data))
    return data[:start] + rng.choice(TOKENS) + data[start:]


def _replace(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _span(rng, len(data))
    return data[:start] + rng.choice(TOKENS) + data[end:]


def _remove(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _span(rng, len(data))
    return data[:start] + data[end:]


def _repeat(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _span(rng, len(data))
    return data[:end] + data[start:end] * rng.choice((1, 2, 10, 100)) + data[end:]


def _cut(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: rng.randint(0, len(data))]


def _splice(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    other = rng.choice(seeds)
    return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]


def _lines(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """A line removed, repeated, moved, or with other white space before it."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    to = rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(to, lines[at])
    elif kind == 2:
        lines[at], lines[to] = lines[to], lines[at]
    else:
        lines[at] = rng.choice((b"", b" ", b"  ", b"\t", b"- ")) + lines[at].lstrip()
    return b"\n".join(lines)


def _cells(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A cell removed, exchanged, or replaced by something that upsets or by a cell of another
    seed.
    """
    separator = rng.choice(SEPARATORS)
    cells = data.split(separator)
    at = rng.randrange(len(cells))
    to = rng.randrange(len(cells))
    kind = rng.randrange(4)
    if kind == 0:
        del cells[at]
    elif kind == 1:
        cells[at], cells[to] = cells[to], cells[at]
    elif kind == 2:
        cells[at] = rng.choice(TOKENS)
    else:
        cells[at] = rng.choice(rng.choice(seeds).split(separator))
    return separator.join(cells)


MUTATIONS: tuple[Mutation, ...] = (
    _flip,
    _insert,
    _replace,
    _remove,
    _repeat,
    _cut,
    _splice,
    _lines,
    _lines,
    _cells,
    _cells,
)
