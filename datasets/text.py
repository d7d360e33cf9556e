"""What is the text of a file? Packed or not, in whatever encoding its program wrote it."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from pathlib import Path

# Control characters that no text holds (tab, line feed, form feed, carriage return and escape may occur).
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def read_text(path: Path) -> str:
    """The text of `path` with plain line ends and no byte order mark.

    Gzip and zip archives of one file are unpacked, recognised by their first bytes and not by their name.
    Raises ValueError naming the file: absent, unreadable, empty, damaged, or no text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    text = _decode(path, _unpack(path, data))
    if not text.strip():
        raise ValueError(f"{path}: the file is empty")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def stem(path: Path) -> str:
    """The file's name without its endings: `7yds` of `7yds.yaml.gz`."""
    return re.sub(r"\.[^.]+(\.gz|\.zip)?$", "", path.name, flags=re.IGNORECASE)


def _unpack(path: Path, data: bytes) -> bytes:
    if data.startswith(b"\x1f\x8b"):
        try:
            return gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: the gzip file is damaged ({error})") from error
    if data.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
                if len(names) != 1:
                    raise ValueError(f"{path}: a zip archive of {len(names)} files, wanted one text file")
                return archive.read(names[0])
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path}: the zip archive is damaged ({error})") from error
    return data


def _decode(path: Path, data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # spreadsheets save "Unicode text" so
        text = data.decode("utf-16", errors="replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            # All that is computed with is ASCII; an old single-byte encoding garbles a title at worst.
            text = data.decode("cp1252", errors="replace")
    if found := _BINARY.search(text):
        raise ValueError(f"{path}: not a text file (character {ord(found[0]):#04x} at {found.start()})")
    return text
