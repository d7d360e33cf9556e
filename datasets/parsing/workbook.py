"""Workbooks of Excel (xlsx): the first sheet as a table of texts."""

from __future__ import annotations

import csv
import io
import posixpath
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

_MAX_COLUMNS = 16_384  # of a sheet, Excel's own limit
_CELL = re.compile(r"([A-Z]{1,3})[1-9][0-9]{0,6}")
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")  # how control characters are written


def sheet_text(path: Path, data: bytes, max_bytes: int) -> str:
    """The first sheet of a workbook, as text with tabs between the cells.

    Values are as stored: the results of formulas, numbers with a point. Raises ValueError naming
    the file: not a workbook, damaged, XML with a document type, larger than `max_bytes` once
    unpacked or written out.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            book = _Workbook(path, archive, max_bytes)
            shared = book.shared_strings()
            return book.first_sheet(shared)
    except expat.ExpatError as error:
        raise ValueError(f"{path}: damaged XML in the workbook ({error})") from error


class _Writer:
    """Rows as a text with tabs, each written as soon as it is read.

    A row of one cell in the last column has all the others, and many cells may share one long
    string, so that a small file may hold much.
    """

    def __init__(self, path: Path, max_characters: int) -> None:
        self.path = path
        self.max_characters = max_characters
        self.text = io.StringIO()
        self.writer = csv.writer(self.text, delimiter="\t", lineterminator="\n")
        self.width = 0

    def add(self, row: list[str]) -> None:
        """Write a row, as wide as the first at least."""
        self.width = self.width or len(row)
        num_characters = sum(map(len, row)) + max(self.width, len(row))
        if self.text.tell() + num_characters > self.max_characters:
            raise ValueError(
                f"{self.path}: the first sheet holds more than {self.max_characters:,} characters"
            )
        self.writer.writerow([*row, *[""] * (self.width - len(row))])


@dataclass(frozen=True)
class _Workbook:
    path: Path
    archive: zipfile.ZipFile
    max_bytes: int

    def shared_strings(self) -> list[str]:
        """The texts that cells name by number."""
        name = "xl/sharedStrings.xml"
        if name not in self.archive.namelist():
            return []
        reader = _SharedStrings()
        self._parse(name, reader)
        return reader.texts

    def first_sheet(self, shared: list[str]) -> str:
        """The rows of the first sheet that have a cell, as a text."""
        writer = _Writer(self.path, self.max_bytes)
        self._parse(self._first_sheet(), _Sheet(self.path, shared, writer.add))
        return writer.text.getvalue()

    def _first_sheet(self) -> str:
        """The name of the first sheet's file in the archive."""
        book = _Elements(frozenset({"sheet"}))
        self._parse("xl/workbook.xml", book)
        links = _Elements(frozenset({"Relationship"}))
        self._parse("xl/_rels/workbook.xml.rels", links)
        targets = {link.get("Id", ""): link.get("Target", "") for link in links.found}
        if not book.found:
            raise ValueError(f"{self.path}: the workbook has no sheet")
        target = targets.get(book.found[0].get("id", ""), "")
        return posixpath.normpath(posixpath.join("/xl", target)).lstrip("/")

    def _parse(self, name: str, reader: _Reader) -> None:
        if name not in self.archive.namelist():
            raise ValueError(f"{self.path}: not an Excel workbook; {name!r} is missing in it")
        if self.archive.getinfo(name).file_size > self.max_bytes:
            raise ValueError(f"{self.path}: {name} holds more than {self.max_bytes:,} bytes")
        parser = expat.ParserCreate(namespace_separator="\n")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.StartElementHandler = _local(reader.start)
        parser.EndElementHandler = _local(reader.end)
        parser.CharacterDataHandler = reader.text
        with self.archive.open(name) as file:  # reads no more than the size that was checked
            while chunk := file.read(1 << 20):
                parser.Parse(chunk, False)
        parser.Parse(b"", True)

    def _refuse_doctype(self, *_: Any) -> None:
        raise ValueError(f"{self.path}: XML with a document type, which workbooks do not have")


def _local(handler: Callable[..., None]) -> Callable[..., None]:
    """A handler that gets names without their namespace."""

    def handle(name: str, attributes: dict[str, str] | None = None) -> None:
        local = name.rpartition("\n")[2]
        if attributes is None:
            handler(local)
        else:
            handler(local, {key.rpartition("\n")[2]: value for key, value in attributes.items()})

    return handle


class _Reader:
    """What is made of the elements of a file."""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""

    def end(self, name: str) -> None:
        """An element ends."""

    def text(self, text: str) -> None:
        """Text inside an element."""


@dataclass
class _Elements(_Reader):
    """The attributes of the elements of some names."""

    names: frozenset[str]
    found: list[dict[str, str]] = field(default_factory=list)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name in self.names:
            self.found.append(attributes)


@dataclass
class _Texts(_Reader):
    """The text inside `t` elements, without that of phonetic guides."""

    parts: list[str] = field(default_factory=list)
    is_text: bool = False
    is_guide: bool = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.is_guide = self.is_guide or name == "rPh"
        self.is_text = name == "t" and not self.is_guide

    def end(self, name: str) -> None:
        self.is_guide = self.is_guide and name != "rPh"
        self.is_text = False

    def text(self, text: str) -> None:
        if self.is_text:
            self.parts.append(text)

    def taken(self) -> str:
        """The text so far, which is forgotten."""
        text = "".join(self.parts)
        self.parts.clear()
        return _ESCAPE.sub(_unescaped, text)


def _unescaped(match: re.Match[str]) -> str:
    """The character, or the escape as written where no text has such a character."""
    character = chr(int(match[1], 16))
    return character if character.isprintable() or character in "\t\n\r" else match[0]


@dataclass
class _SharedStrings(_Texts):
    texts: list[str] = field(default_factory=list)

    def end(self, name: str) -> None:
        super().end(name)
        if name == "si":
            self.texts.append(self.taken())


@dataclass
class _Cell:
    """A cell that is being read: its type, as the attribute `t` has it, and its column from 0."""

    kind: str = "n"
    column: int = 0


class _Sheet(_Texts):
    """The rows of a sheet, with numbers, booleans, shared, inline and formula texts, for `add`."""

    def __init__(self, path: Path, shared: list[str], add: Callable[[list[str]], None]) -> None:
        super().__init__()
        self.path = path
        self.shared = shared
        self.add = add
        self.row: list[str] = []
        self.cell = _Cell()

    def start(self, name: str, attributes: dict[str, str]) -> None:
        super().start(name, attributes)
        if name == "row":
            self.row = []
        elif name == "c":
            self.cell = _Cell(attributes.get("t", "n"), self._number(attributes.get("r", "")))
            self.parts.clear()
        elif name == "v":
            self.is_text = True

    def end(self, name: str) -> None:
        super().end(name)
        if name == "c":
            missing = self.cell.column - len(self.row)
            self.row.extend([""] * missing)
            self.row.append(self._value(self.taken()))
        elif name == "row" and any(self.row):
            self.add(self.row)

    def _number(self, place: str) -> int:
        """The column of `AB12`, from 0; the next one for a cell without a place."""
        if not place:
            return len(self.row)
        match = _CELL.fullmatch(place)
        number = 0
        for letter in match[1] if match else "":
            number = number * 26 + ord(letter) - ord("A") + 1
        if not len(self.row) < number <= _MAX_COLUMNS:
            raise ValueError(f"{self.path}: a cell at {place[:20]!r} is out of place")
        return number - 1

    def _value(self, text: str) -> str:
        if self.cell.kind != "s":
            return text
        if not text.isdecimal() or not int(text[:9]) < len(self.shared):
            raise ValueError(f"{self.path}: a cell names the shared text {text[:20]!r}")
        return self.shared[int(text[:9])]
