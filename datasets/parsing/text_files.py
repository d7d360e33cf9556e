"""Text files, gzipped or not, of any common encoding; names in messages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from foldcp.datasets.parsing.workbook import sheet_text
from foldcp.files import MAX_BYTES, decode_text, read_file, reading

# Control characters that do not occur in texts, unlike tab, line feed, form feed, carriage return
# and escape.
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def read_text(path: Path, max_bytes: int = MAX_BYTES, keep_nul: bool = False) -> str:
    """The text of `path` with plain line ends and no byte order mark.

    With `keep_nul`, NUL characters may occur: MMseqs2 ends alignments by them.

    Gzip, xz and zip archives of one file are unpacked, see `read_file`; of an Excel workbook it is
    the first sheet, with tabs between the cells. Raises ValueError naming the file: absent, not a
    regular file, unreadable, larger than `max_bytes` once unpacked, empty, damaged, or not text.
    """
    data = read_file(path, max_bytes).data
    with reading(str(path)):
        is_workbook = data.startswith(b"PK\x03\x04")
        text = sheet_text(path, data, max_bytes) if is_workbook else decode_text(data)
        if found := _BINARY.search(text.replace("\0", "") if keep_nul else text):
            raise ValueError(
                f"{path}: not a text file (character {ord(found[0]):#04x} at {found.start()})"
            )
    if not text.replace("\0", "").strip():
        raise ValueError(f"{path}: the file is empty")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def stem(path: Path) -> str:
    """The file's name without its suffixes: `7yds` of `7yds.yaml.gz`."""
    return re.sub(r"\.[^.]+(\.gz|\.xz|\.zip)?$", "", path.name, flags=re.IGNORECASE) or path.name


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded; file names whose bytes are not UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def escape_path(path: Path | str) -> str:
    """A path whose bytes may not be UTF-8, as printable text: `caf\\xe9.yaml`."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def in_a_line(text: str) -> str:
    """The text with spaces in place of line ends."""
    return re.sub(r"[\r\n]+", " ", text)


def join_names(names: Iterable[object], max_names: int = 20) -> str:
    """The names with commas between them; of many the first, and how many more there are."""
    words = list(map(str, names))
    more = f" and {len(words) - max_names:,} more" if len(words) > max_names else ""
    return ", ".join(words[:max_names]) + more
