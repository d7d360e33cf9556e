"""Meaning of each byte of an MSA's row. Without torch."""

from __future__ import annotations

import string

from foldcp.chemistry.vocabulary import GAP, PROTEIN_LETTERS, TOKEN_IDS

# An index in the vocabulary, an insertion, or illegal.
INSERTION = 100
ILLEGAL = 101
LOWER = string.ascii_lowercase.encode()
_MEANINGS = {
    **dict.fromkeys(LOWER, INSERTION),
    **dict.fromkeys(b"XJBZOU", TOKEN_IDS["UNK"]),
    **{ord(letter): TOKEN_IDS[name] for letter, name in PROTEIN_LETTERS.items()},
    ord("-"): GAP,
}
MEANING = bytes(_MEANINGS.get(byte, ILLEGAL) for byte in range(256))
UPPER = bytes(range(256)).upper()


def illegal_letter(row: bytes) -> str:
    """The first illegal letter of a row, in whatever encoding it was written."""
    try:
        text = row.decode()
    except UnicodeDecodeError:
        text = row.decode("cp1252", errors="replace")
    return next(letter for letter in text if ord(letter) > 255 or MEANING[ord(letter)] == ILLEGAL)
