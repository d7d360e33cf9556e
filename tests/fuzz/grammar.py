"""Files that are nearly valid: the fields of a valid one replaced, removed, repeated or moved."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import yaml
from hypothesis import strategies as st

from tests.fuzz import seeds

# Numbers that JSON and YAML may hold as they are written, and Python's own cannot.
RAW = ("1e400000", "9" * 5_000, "-0", "NaN", "-Infinity", "0x" + "f" * 4_000, "1:1:1", "1_0", "[]")
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    "",
    "~",
    " ",
    0,
    -1,
    1e308,
    2**63,
    "9" * 5_000,
    "1e999",
    "nan",
    [],
    {},
    [[]],
    ["A", "A"],
    {"id": "A"},
    "A" * 3_000,
    "\0",
    "é\u0301",
    "\u202e",
    "\u2028",
    "\x85",
    "\ufeff",
    "a\nb",
    "a\tb",
    "\U0001f9ec",
    "\ud800",
    "١٢",
    "²",
    "../x",
    "/dev/null",
    "~nobody/x",
    *(f"@raw{number}@" for number in range(len(RAW))),
)
ODD_FIELDS = (
    *(value for value in ODD_VALUES if isinstance(value, str)),
    *("0", "-1", "1.0", "1001", "1e3", "None", "-", '"', "'", ">", "#", ";", ",", "|", "*", "?"),
    *("&amp;", "<!DOCTYPE x>", "<t>", "XFD1"),
)
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252")
LINE_ENDS = ("\n", "\n", "\n", "\r\n", "\r", "\n\n")

Tree = Any


@dataclass
class Choices:
    """Choices that a number makes, from its lowest digits on; 0 chooses the first everywhere."""

    number: int

    def below(self, count: int) -> int:
        """A number below `count`."""
        self.number, chosen = divmod(self.number, count)
        return chosen

    def of(self, options: Sequence[Any]) -> Any:
        """One of the options."""
        return options[self.below(len(options))]


# A text and some numbers are all that is drawn, since drawing costs more than reading: they make
# `BATCH` files, with one edit, two edits, and so on.
BATCH = 4
_CHOICES = st.integers(0, 2**48)
_DRAWN = st.tuples(
    _CHOICES,
    st.lists(_CHOICES, min_size=BATCH, max_size=BATCH),
    st.text(st.characters(), max_size=8),
)
Files = st.SearchStrategy[list[bytes]]


def _batches(make: Callable[[Choices, list[int], str], bytes]) -> Files:
    """Batches of files, each made of choices, edits and a text."""

    def make_all(drawn: tuple[int, list[int], str]) -> list[bytes]:
        number, edits, text = drawn
        return [
            make(Choices(number // 11**count), edits[: count + 1], text) for count in range(BATCH)
        ]

    return _DRAWN.map(make_all)


def nearly_valid_text(
    valid: Sequence[bytes],
    separators: str,
    pack: Callable[[bytes], bytes] = bytes,
    *,
    encoded: bool = True,
) -> Files:
    """Lines of fields, with the separators of the format; `encoded` in any of `ENCODINGS`."""

    def make(choices: Choices, edits: list[int], text: str) -> bytes:
        lines = choices.of(valid).decode().split("\n")
        for edit in edits:
            _edit_lines(lines, Choices(edit), separators, text)
        end = choices.of(LINE_ENDS)
        encoding = choices.of(ENCODINGS) if encoded else "utf-8"
        errors = "replace" if encoding == "cp1252" else "surrogatepass"
        return pack(end.join(lines).encode(encoding, errors))

    return _batches(make)


def _edit_lines(lines: list[str], choices: Choices, separators: str, text: str) -> None:
    """A line or a field of it replaced, removed, repeated or moved."""
    kind = choices.below(9)
    at = choices.below(len(lines))
    if kind < 5:
        separator = choices.of(separators)
        fields = lines[at].split(separator)
        _edit_list(fields, choices, kind, (text, *ODD_FIELDS))
        lines[at] = separator.join(fields)
    elif kind == 8:
        lines[at] += "\n" * choices.below(2) + choices.of(ODD_FIELDS)
    else:
        _edit_list(lines, choices, kind - 4, (text, *ODD_FIELDS))


def _edit_list(items: list[Any], choices: Choices, kind: int, odd: Sequence[Any]) -> None:
    at = choices.below(len(items))
    if kind == 0:
        items[at] = deepcopy(choices.of(odd))
    elif kind == 1:
        del items[at]
    elif kind == 2:
        items.insert(choices.below(len(items)), items[at])
    elif kind == 3:
        other = choices.below(len(items))
        items[at], items[other] = items[other], items[at]
    else:
        items.insert(at, deepcopy(choices.of(odd)))
    if not items:
        items.append("")


def nearly_valid_trees(valid: Sequence[bytes], *, as_yaml: bool = False) -> Files:
    """JSON, or YAML in any style, whose values and keys are not all as they should be."""
    trees = [yaml.load(data, Loader=yaml.CBaseLoader if as_yaml else _JSON) for data in valid]

    def make(choices: Choices, edits: list[int], text: str) -> bytes:
        root = [deepcopy(choices.of(trees))]
        for edit in edits:
            _edit_tree(root, Choices(edit), text)
        written = _written(root[0], choices, as_yaml)
        for number, raw in enumerate(RAW):
            for quote in ('"', "'", ""):
                written = written.replace(f"{quote}@raw{number}@{quote}", raw)
        return written.encode("utf-8", "surrogatepass")

    return _batches(make)


class _JSON(yaml.CSafeLoader):
    """JSON with its types."""


def _written(tree: Tree, choices: Choices, as_yaml: bool) -> str:
    style = choices.below(4)
    if not as_yaml or style == 0:
        return json.dumps(tree, ensure_ascii=choices.below(2) == 0, indent=choices.of((None, 1)))
    text = yaml.dump(
        _without_surrogates(tree),
        Dumper=yaml.CSafeDumper,
        default_flow_style=style == 1,
        allow_unicode=style == 2,
        sort_keys=False,
    )
    return text.replace(_HALF, "\ud800" if style == 2 else r"\ud800")


_HALF = "@half@"  # in place of halves of surrogate pairs, which libyaml cannot write


def _without_surrogates(node: Tree) -> Tree:
    if isinstance(node, dict):
        return {_without_surrogates(key): _without_surrogates(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_surrogates(value) for value in node]
    if isinstance(node, str):
        return re.sub("[\ud800-\udfff]", _HALF, node)
    return node


def _edit_tree(root: list[Tree], choices: Choices, text: str) -> None:
    """A value of the tree replaced, removed, repeated, renamed, wrapped or taken from elsewhere."""
    nodes = [root]
    for node in nodes:
        children = node.values() if isinstance(node, dict) else node
        nodes += [child for child in children if isinstance(child, dict | list) and child]
    kind = choices.below(7)
    around = choices.of(nodes)
    odd = (text, *ODD_VALUES, choices.of(nodes))
    if isinstance(around, list):
        if around is root:
            kind = 0 if kind < 5 else kind
        if kind < 5:
            _edit_list(around, choices, kind, odd)
            return
        key: Any = choices.below(len(around))
    else:
        key = choices.of(list(around))
    if kind == 1:
        del around[key]
    elif kind in (2, 3):
        around[choices.of((text, "extra", *around))] = around.pop(key)
    elif kind == 4:
        around[key] = around[choices.of(list(around))]
    elif kind == 5:
        around[key] = [around[key]]
    elif kind == 6 and isinstance(around[key], list) and around[key]:
        around[key] = around[key][0]
    else:
        around[key] = deepcopy(choices.of(odd))


def nearly_valid_archives() -> Files:
    """Tar archives with members of any type, size and order, whole and cut off."""
    contents = (b"", b"#", seeds.server_alignments(), b">101\nMKT\n\0")
    names = (seeds.SERVER_FILE, f"./{seeds.SERVER_FILE}", "x", "a/" * 80, "é", "")
    kinds = (
        tarfile.REGTYPE, tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE,
        tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, b"Z",
    )  # fmt: skip
    sizes = (0, 1, -1, 511, 512, 8**11, 2**62, -(2**62))
    forms = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)

    def make(choices: Choices, edits: list[int], text: str) -> bytes:
        members = [b""] * choices.below(2)
        for edit in [0, *edits]:
            member = Choices(edit)
            data = contents[2] if edit == 0 else member.of(contents)
            info = tarfile.TarInfo(seeds.SERVER_FILE if edit == 0 else member.of((*names, text)))
            info.size = len(data)
            info.type = member.of(kinds)
            if member.below(4) == 3:
                info.size = member.of(sizes)
                info.pax_headers = {"size": str(info.size), text.replace("=", "") or "x": text}
            form = tarfile.GNU_FORMAT if not 0 <= info.size < 8**11 else member.of(forms)
            header = info.tobuf(form, "utf-8", "replace")
            members.append(header + data + bytes(-len(data) % 512))
        packed = b"".join(reversed(members)) + bytes(1024)
        return packed[: len(packed) - choices.of((0, 0, 0, 512, 1024, 1500))]

    return _batches(make)
