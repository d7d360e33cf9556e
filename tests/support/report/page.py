"""What an HTML report holds, as a browser would see it."""

from __future__ import annotations

import base64
import gzip
import json
import re
import struct
from html.parser import HTMLParser
from typing import Any

import numpy as np


class Tags(HTMLParser):
    """Every tag that a browser would see, and a check that what is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data + " "

    @property
    def words(self) -> str:
        """The text, with single spaces."""
        return " ".join(self.text.split())


def page_facts(page: str) -> dict[str, Any]:
    """The JSON that describes the page."""
    found = re.search(r'<script type="application/json" id="facts">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def block_names(page: str) -> list[str]:
    """The names of the packed blocks of a page."""
    return re.findall(r'id="block-([\w-]+)"', page)


def unpack(page: str, name: str) -> dict[str, Any]:
    """The columns of a packed block, as html/js/data.js reads them; `facts` are its facts."""
    found = re.search(rf'id="block-{name}">([^<]*)</script>', page)
    assert found, f"no block {name}"
    data = gzip.decompress(base64.b64decode(found[1]))
    (size,) = struct.unpack_from("<I", data)
    header = json.loads(data[4 : 4 + size])
    body = data[4 + size :]
    columns: dict[str, Any] = {"facts": header["facts"]}
    for column in header["columns"]:
        columns[column["name"]] = _values(body[column["offset"] :], column)
    return columns


def _values(data: bytes, column: dict[str, Any]) -> Any:
    kind = column["kind"]
    count = column["length"]
    if kind.startswith("text"):
        codes = np.frombuffer(data, f"<{kind[4:]}", count)
        return [column["values"][code] for code in codes]
    if kind == "decimal":
        codes = np.frombuffer(data, "<u2", count)
        return np.where(codes == 65535, np.nan, column["low"] + codes * column["step"])
    if kind == "integer":
        whole = np.frombuffer(data, "<i4", count)
        return np.where(whole == -(2**31), np.nan, whole)
    if kind == "small":
        codes = np.frombuffer(data, "u1", count)
        return np.where(codes == 255, np.nan, codes * column["step"])
    if kind.startswith("difference"):
        changes = np.frombuffer(data, f"<{kind[10:]}", count)
        return np.cumsum(changes.astype(np.int64)) * column["step"]
    return np.frombuffer(data, f"<{kind[5:]}", count)
