"""Boltz's building of alignments with its three faults corrected: its own source, with six lines
replaced.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from boltz import main
from boltz.data.feature import featurizerv2

Change = tuple[str, str]
PAIRED_ROWS_COME_AGAIN: Change = (
    "visited = {(c, s) for c, items in taxonomy_map for s in items}",
    "visited = {pair for _, pairs in taxonomy_map for pair in pairs}",
)
DELETIONS_ARE_LOST: Change = (
    "            chain_deletions = chain_deletions[del_start:del_end]\n"
    "            for deletion_data in chain_deletions:",
    "            for deletion_data in chain_deletions[del_start:del_end]:",
)
PARTNERS_ARE_LOST: Change = (
    "        if str_seq not in visited:\n            visited.add(str_seq)",
    "        mark = str_seq if taxonomy_id == -1 else (taxonomy_id, str_seq)\n"
    "        if mark not in visited:\n            visited |= {mark, str_seq}",
)


def _changed(function: Callable, *changes: Change) -> Callable:
    source = inspect.getsource(function)
    for before, after in changes:
        assert source.count(before) == 1, f"{function.__name__} is not that of boltz 2.2.1"
        source = source.replace(before, after)
    names = dict(function.__globals__)
    exec(source, names)
    return names[function.__name__]


@contextmanager
def mended() -> Iterator[None]:
    """Inside, Boltz does not show paired rows again, counts deletions, and keeps the partners of
    equal rows.
    """
    pair = _changed(featurizerv2.construct_paired_msa, PAIRED_ROWS_COME_AGAIN, DELETIONS_ARE_LOST)
    read = _changed(main.parse_csv, PARTNERS_ARE_LOST)
    with (
        patch.object(featurizerv2, "construct_paired_msa", pair),
        patch.object(main, "parse_csv", read),
    ):
        yield
