"""UniProt accessions, and those that have been replaced by others."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from foldcp.complex import UNIPROT
from foldcp.datasets.parsing.text_files import join_names, read_text
from foldcp.files import MAX_BYTES

_ACCESSION = re.compile(UNIPROT)

Replacements = Mapping[str, tuple[str, ...]]  # the accessions that an obsolete one was split into


def read_replacements(path: Path, max_bytes: int = MAX_BYTES) -> Replacements:
    """The obsolete accessions of UniProt's `sec_ac.txt`, or of a table of two columns.

    Lines before the first pair of accessions are a header; blank lines count nowhere. Raises
    ValueError naming the file and the line: one that is no pair, or a file without pairs.
    """
    replacements: dict[str, dict[str, None]] = {}
    for number, line in enumerate(read_text(path, max_bytes).split("\n"), start=1):
        words = re.split(r"[\s,;]+", line.strip().replace('"', ""))
        is_pair = len(words) == 2 and all(map(_ACCESSION.fullmatch, words))
        if is_pair:
            secondary, primary = words
            replacements.setdefault(secondary, {})[primary] = None
        elif replacements and _ACCESSION.fullmatch(words[0]):
            raise ValueError(
                f"{path}: line {number}: {line.strip()[:80]!r}; expected an obsolete accession and "
                "the one that replaces it"
            )
    if not replacements:
        raise ValueError(
            f"{path}: no line holds an obsolete accession and the one that replaces it"
        )
    return {secondary: tuple(primaries) for secondary, primaries in replacements.items()}


def present_accession(accession: str, replacements: Replacements) -> str:
    """The accession that stands for an obsolete one today; itself if it has not been replaced.

    Raises ValueError naming all accessions, for one that was split into several, and for
    replacements that go in a circle.
    """
    ends: dict[str, None] = {}
    seen: set[str] = set()
    waiting = deque([accession])
    while waiting:
        name = waiting.popleft()
        if name in seen:
            continue
        seen.add(name)
        followers = replacements.get(name, ())
        waiting.extend(followers)
        if not followers:
            ends[name] = None
    if not ends:
        raise ValueError(f"{accession}: replaced in a circle ({join_names(sorted(seen))})")
    if len(ends) > 1:
        raise ValueError(
            f"{accession} is obsolete and was split into {join_names(ends)}; name the one that is "
            "meant"
        )
    return next(iter(ends))
