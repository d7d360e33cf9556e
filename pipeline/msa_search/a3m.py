"""Rows of an a3m with their headers."""

from __future__ import annotations

from foldcp.features.msa.parse import decode_plain
from foldcp.pipeline.msa_search.stockholm import HeadedRow


def parse_a3m(data: bytes, what: str) -> list[HeadedRow]:
    """The sequences of an a3m or an aligned FASTA; lines with # are comments.

    Raises ValueError that begins with `what` for text before the first header.
    """
    rows: list[HeadedRow] = []
    header = None
    pieces: list[str] = []
    for line in decode_plain(data).decode("latin-1").split("\n"):
        text = line.strip(" \t\0")
        if text.startswith(">"):
            if header is not None and pieces:
                rows.append(HeadedRow(header, "".join(pieces)))
            header = text[1:].strip()
            pieces = []
        elif text and not text.startswith("#"):
            if header is None:
                raise ValueError(f"{what}: text before the first header (>)")
            pieces.append(text.replace(".", ""))
    if header is not None and pieces:
        rows.append(HeadedRow(header, "".join(pieces)))
    return rows
