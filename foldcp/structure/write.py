"""Writing a structure: mmCIF as text, gzipped text, or BinaryCIF.

Text is ASCII, as CIF 1.1 asks for: other letters and control characters of names and titles become
`\\uNNNN`. A BinaryCIF file has the same values.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import gemmi
import numpy as np
from biotite.structure.io.pdbx import (
    BinaryCIFBlock,
    BinaryCIFCategory,
    BinaryCIFColumn,
    BinaryCIFData,
    BinaryCIFFile,
    FixedPointEncoding,  # type: ignore[reportAttributeAccessIssue]  # compiled
    MaskValue,
    compress,
)
from jaxtyping import Float

from foldcp.structure.atoms import atom_tables
from foldcp.structure.components import component_tables, is_sugar
from foldcp.structure.confidence import confidence_tables
from foldcp.structure.connections import connection_tables
from foldcp.structure.entities import entity_tables
from foldcp.structure.molecules import Molecules
from foldcp.structure.predicted import PredictedStructure
from foldcp.structure.protocol import head_tables, protocol_tables
from foldcp.structure.references import reference_tables
from foldcp.structure.tables import (
    INAPPLICABLE,
    UNKNOWN,
    Column,
    Lines,
    Missing,
    Tables,
    plain_text,
)

StructureFormat = Literal["cif.gz", "cif", "bcif"]

MAX_BLOCK_CODE = 75  # characters of a data block's name, by CIF 1.1
DECIMALS = 3
GZIP_LEVEL = 4  # a third of the time of the usual 6, for 4% more bytes
_MASKS: dict[object, MaskValue] = {
    UNKNOWN: MaskValue.MISSING,
    INAPPLICABLE: MaskValue.INAPPLICABLE,
}
# Categories of one row by definition; they are written as pairs, others as loops.
PAIRS = frozenset({"entry", "audit_conform", "struct"})


def write_structure(
    path: Path, structure: PredictedStructure, format: StructureFormat = "cif"
) -> None:
    """Write a structure. Raises ValueError as `structure_tables`, and OSError."""
    content = bcif_bytes(structure) if format == "bcif" else cif_text(structure).encode("ascii")
    if format == "cif.gz":
        content = gzip.compress(content, GZIP_LEVEL, mtime=0)  # equal structures, equal files
    Path(path).write_bytes(content)


def structure_format(path: Path) -> StructureFormat:
    """The format that a file's name asks for: `cif`, unless it ends in .cif.gz or .bcif."""
    name = path.name.lower()
    if name.endswith(".bcif"):
        return "bcif"
    return "cif.gz" if name.endswith(".gz") else "cif"


def structure_tables(structure: PredictedStructure) -> Tables:
    """All tables of a structure's file.

    Raises:
        ValueError: when a coordinate or a pLDDT is not finite.
    """
    layout = structure.layout
    coords = structure.coords
    plddt = structure.plddt
    if not (np.isfinite(coords).all() and np.isfinite(plddt).all()):
        raise ValueError(f"structure {structure.name}: coordinates or pLDDT are not finite")
    assert coords.shape == (len(layout.atom_token), 3) and plddt.shape == (len(layout.token_chain),)
    molecules = Molecules(layout, is_sugar)
    return {
        **head_tables(structure),
        **component_tables(molecules),
        **entity_tables(molecules),
        **reference_tables(molecules),
        **protocol_tables(structure, molecules),
        **confidence_tables(molecules, plddt, structure.scores),
        **connection_tables(molecules, coords),
        **atom_tables(structure, molecules),
    }


def cif_text(structure: PredictedStructure) -> str:
    """The text of an mmCIF file. Raises ValueError as `structure_tables`."""
    document = gemmi.cif.Document()
    block = document.add_new_block(_block_code(structure.name))
    for category, table in structure_tables(structure).items():
        columns = {name: _cif_column(column) for name, column in table.items()}
        if category in PAIRS:
            for name, values in columns.items():
                block.set_pair(f"_{category}.{name}", values[0])
        else:
            block.init_loop(f"_{category}.", list(columns)).set_all_values(list(columns.values()))
    return document.as_string()


def bcif_bytes(structure: PredictedStructure) -> bytes:
    """The bytes of a BinaryCIF file. Raises ValueError as `structure_tables`."""
    categories = {
        category: BinaryCIFCategory({name: _bcif_column(column) for name, column in table.items()})
        for category, table in structure_tables(structure).items()
    }
    file = BinaryCIFFile({_block_code(structure.name): BinaryCIFBlock(categories)})
    buffer = io.BytesIO()
    file.write(buffer)
    return buffer.getvalue()


def _block_code(name: str) -> str:
    """A name as that of a data block: up to 75 ASCII characters without blanks."""

    def is_allowed(letter: str) -> bool:
        return letter.isascii() and letter.isprintable() and not letter.isspace()

    return "".join(c if is_allowed(c) else "_" for c in name[:MAX_BLOCK_CODE])


def _cif_column(column: Column) -> list[str]:
    """Values in CIF's quotes where they need them; each different one is quoted once."""
    if isinstance(column, np.ndarray):
        return [f"{x:.{DECIMALS}f}" if x == x else UNKNOWN.value for x in column.tolist()]
    quoted = {value: _cif_value(value) for value in set(column)}
    return [quoted[value] for value in column]


def _cif_value(value: str | int | Missing) -> str:
    if isinstance(value, Missing):
        return value.value
    return gemmi.cif.quote(_text(value)) if isinstance(value, str) else str(value)


def _text(value: str) -> str:
    return value if isinstance(value, Lines) else plain_text(value)


def _bcif_column(column: Column) -> BinaryCIFColumn:
    """Numbers or texts, and a mask where some are missing."""
    if isinstance(column, np.ndarray):
        is_missing = np.isnan(column)
        mask = np.where(is_missing, MaskValue.MISSING, MaskValue.PRESENT)
        data = _bcif_numbers(np.where(is_missing, 0, column.astype(np.float64)))
    else:
        distinct = list(set(column))
        place = {value: index for index, value in enumerate(distinct)}
        places = np.fromiter((place[value] for value in column), np.int64, len(column))
        mask = np.array([_MASKS.get(value, MaskValue.PRESENT) for value in distinct])[places]
        data = _compressed(_bcif_values(distinct)[places])
    if (mask == MaskValue.PRESENT).all():
        return BinaryCIFColumn(data)
    return BinaryCIFColumn(data, _compressed(mask.astype(np.uint8)))


def _bcif_values(values: Sequence[str | int | Missing]) -> np.ndarray:
    """Whole numbers, or texts, with 0 or nothing in place of missing ones."""
    present = [value for value in values if not isinstance(value, Missing)]
    if present and all(isinstance(value, int) for value in present):
        return np.array([0 if isinstance(value, Missing) else value for value in values])
    return np.array(["" if isinstance(value, Missing) else _text(str(value)) for value in values])


def _bcif_numbers(values: Float[np.ndarray, " n"]) -> BinaryCIFData:
    """Numbers to three decimals, as whole numbers of thousandths.

    `compress` would choose a factor for each column; below 1, not every program reads it.
    """
    factor = 10**DECIMALS
    thousandths = np.rint(values * factor)
    if np.abs(thousandths).max() > np.iinfo(np.int32).max:
        return BinaryCIFData(values)
    encodings = _compressed(thousandths.astype(np.int32)).encoding
    return BinaryCIFData(values, [FixedPointEncoding(factor, np.float64), *encodings])


def _compressed(values: np.ndarray) -> BinaryCIFData:
    data = compress(BinaryCIFData(values))
    assert isinstance(data, BinaryCIFData)
    return data
