"""Columns of components of the Chemical Component Dictionary (CCD).

The residues of the vocabulary have a file of their own, `standard_components.json`: the whole
dictionary, which comes with Biotite, takes each process seconds to decode.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

STANDARD_FILE = Path(__file__).with_name("standard_components.json")

# category -> column -> values
Categories = dict[str, dict[str, list[str]]]


def ccd_column(category: str, code: str, column: str) -> list[str] | None:
    """One column of a component's rows in a category, as text; None if it has none there.

    A value that is not known is "?" or ".".
    """
    values = _standard_components().get(code, {}).get(category, {}).get(column)
    return dictionary_column(category, code, column) if values is None else values


@cache
def _standard_components() -> dict[str, Categories]:
    return json.loads(STANDARD_FILE.read_text())


def dictionary_column(category: str, code: str, column: str) -> list[str] | None:
    """The same from the dictionary itself.

    The first use of a column decodes it for all components, so no more are used than needed.
    """
    from biotite.structure.info.ccd import get_from_ccd  # takes long to import
    from biotite.structure.io.pdbx import BinaryCIFColumn

    values = get_from_ccd(category, code, column)
    assert values is None or isinstance(values, BinaryCIFColumn)
    return None if values is None else values.as_array(str).tolist()
