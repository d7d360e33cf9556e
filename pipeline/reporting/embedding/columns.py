"""Columns of a table as compressed text, to be embedded in a page; html/js/data.js reads it.

Numbers become 16 bits where a decimal step is fine enough, texts become numbers of a list. What is
made is the base64 of the gzip of: the length of a header in 4 bytes, the header in JSON, and the
columns one after another, each at a multiple of 8 bytes.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Num

ALIGNMENT = 8
MISSING_16 = 2**16 - 1
MISSING_32 = -(2**31)
# Steps of a column of decimals, the finest that fits its range is taken.
DECIMAL_STEPS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True, eq=False)
class PackedColumn:
    """A column as bytes; `extra` is what its reader needs beside `kind` and `length`."""

    kind: str
    data: bytes
    length: int
    extra: dict[str, Any] = field(default_factory=dict)


def texts(values: Sequence[str | None]) -> PackedColumn:
    """Texts, each different one once; a missing one is empty."""
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(value or "", len(numbers)) for value in values]
    dtype = "<u2" if len(numbers) <= MISSING_16 else "<u4"
    return PackedColumn(
        f"text{dtype[1:]}", np.array(codes, dtype).tobytes(), len(codes), {"values": list(numbers)}
    )


def decimals(values: Num[np.ndarray, "n"]) -> PackedColumn:
    """Numbers, with at least four digits of the column's range; NaN where one is missing."""
    numbers = np.asarray(values, np.float64)
    known = numbers[np.isfinite(numbers)]
    low = float(np.floor(known.min())) if len(known) else 0.0
    extent = float(known.max()) - low if len(known) else 0.0
    for step in DECIMAL_STEPS:
        if extent / step < MISSING_16:
            scaled = np.full(len(numbers), MISSING_16, np.float64)
            is_known = np.isfinite(numbers)
            scaled[is_known] = np.round((numbers[is_known] - low) / step)
            data = scaled.astype("<u2").tobytes()
            return PackedColumn("decimal", data, len(numbers), {"low": low, "step": step})
    return floats(numbers, "<f4")


def floats(values: Num[np.ndarray, "n"], dtype: str = "<f8") -> PackedColumn:
    """Numbers as they are."""
    numbers = np.asarray(values, dtype)
    return PackedColumn(f"float{dtype[1:]}", numbers.tobytes(), len(numbers))


def integers(values: Num[np.ndarray, "n"]) -> PackedColumn:
    """Whole numbers of 32 bits; NaN where one is missing."""
    numbers = np.asarray(values, np.float64)
    whole = np.where(np.isfinite(numbers), numbers, MISSING_32)
    return PackedColumn("integer", whole.astype("<i4").tobytes(), len(numbers))


def small_numbers(values: Num[np.ndarray, "*shape"], step: float) -> PackedColumn:
    """Numbers from 0 to 254 steps, in 8 bits; NaN where one is missing."""
    numbers = np.asarray(values, np.float64).ravel()
    scaled = np.clip(np.round(numbers / step), 0, 254)
    scaled = np.where(np.isfinite(numbers), scaled, 255)
    return PackedColumn("small", scaled.astype("u1").tobytes(), numbers.size, {"step": step})


def differences(values: Num[np.ndarray, "n"], step: float) -> PackedColumn:
    """Numbers as differences from the one before, which compress well; in 16 bits if they fit."""
    scaled = np.round(np.asarray(values, np.float64) / step).astype(np.int64)
    changes = np.diff(scaled, prepend=0)
    dtype = "<i2" if np.abs(changes).max(initial=0) < 2**15 else "<i4"
    data = changes.astype(dtype).tobytes()
    return PackedColumn(f"difference{dtype[1:]}", data, len(scaled), {"step": step})


def pack(columns: Mapping[str, PackedColumn], facts: Mapping[str, Any] | None = None) -> str:
    """The columns, and any facts that JSON can hold, as one text of ASCII."""
    described = []
    body = bytearray()
    for name, column in columns.items():
        described.append(
            {
                "name": name,
                "kind": column.kind,
                "offset": len(body),
                "length": column.length,
                **column.extra,
            }
        )
        body += column.data
        body += bytes(-len(body) % ALIGNMENT)
    header = json.dumps({"columns": described, "facts": dict(facts or {})}).encode()
    header += b" " * (-(4 + len(header)) % ALIGNMENT)
    content = struct.pack("<I", len(header)) + header + bytes(body)
    return base64.b64encode(gzip.compress(content, compresslevel=6, mtime=0)).decode()
