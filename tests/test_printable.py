"""Escaping of text for terminals."""

from __future__ import annotations

import unicodedata

import pytest

from foldcp.printable import printable, printable_ascii


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TP53/MDM2 é 中 \U0001f9ec", "TP53/MDM2 é 中 \U0001f9ec"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b2J", r"\x9b2J"),
        ("a\tb\r\nc\x00\x7f", r"a\x09b\x0d\x0ac\x00\x7f"),
        ("\u202eexe.\u2066fdp", r"\u202eexe.\u2066fdp"),
        ("a\u2028b\ufeff", r"a\u2028b\ufeff"),
        ("\udce9t\ud83d", r"\udce9t\ud83d"),
    ],
)
def test_printable_escapes_what_a_terminal_would_obey(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_printable_leaves_no_control_characters() -> None:
    everything = "".join(map(chr, range(0x11000)))
    left = printable(everything)
    assert {unicodedata.category(c) for c in left} & {"Cc", "Cs"} == set()
    assert {unicodedata.bidirectional(c) for c in left} & {
        "LRE",
        "RLE",
        "LRO",
        "RLO",
        "PDF",
        "LRI",
        "RLI",
        "PDI",
    } == set()
    left.encode("utf-8")


def test_printable_ascii_escapes_all_beyond_ascii() -> None:
    assert printable_ascii("a b~") == "a b~"
    assert printable_ascii("é中\U0001f9ec\x1b") == r"\xe9\u4e2d\U0001f9ec\x1b"
