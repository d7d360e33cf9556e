"""Escaping of text that a terminal would obey or cannot show."""

from __future__ import annotations

import re

# Control characters (C0, DEL, C1) move the cursor or give commands to a terminal; marks,
# embeddings, overrides and isolates of the bidirectional algorithm and the separators of lines
# reorder or break what is shown; surrogates, which represent bytes of file names that are not
# UTF-8, cannot be encoded.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]",
)


def printable(text: str) -> str:
    r"""The text with unsafe characters as `\xNN` or `\uNNNN`."""
    return _UNSAFE.sub(lambda match: _escape(match[0]), text)


def printable_ascii(text: str) -> str:
    r"""The text with unsafe characters and all beyond ASCII as `\xNN`, `\uNNNN` or `\UNNNNNNNN`."""
    return printable(text).encode("ascii", "backslashreplace").decode("ascii")


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
