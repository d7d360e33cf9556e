"""Files of references: a folder of structures named by complex, or a table of paths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from foldcp.datasets.parsing.tables import read_table
from foldcp.datasets.parsing.text_files import read_text
from foldcp.files import reading
from foldcp.pipeline.evaluation.structures.read import ENDINGS

PACKED = (".gz", ".xz")


@dataclass(frozen=True, eq=False)
class References:
    """Paths of references by the name of a complex, or by what stands for it in a file's name."""

    path: Path
    files: Mapping[str, tuple[Path, ...]]

    def find(self, names: Iterable[str]) -> Path | None:
        """The reference with one of some names, the first that has one; upper and lower case are
        the same where no name is equal. Raises ValueError naming both for two of one name.
        """
        for name in names:
            found = self.files.get(name) or self._by_lower.get(name.lower(), ())
            if len(found) > 1:
                listed = " and ".join(path.name for path in sorted(found))
                raise ValueError(f"{self.path}: two references of {name}: {listed}")
            if found:
                return found[0]
        return None

    @cached_property
    def _by_lower(self) -> Mapping[str, tuple[Path, ...]]:
        found: dict[str, tuple[Path, ...]] = {}
        for name, paths in self.files.items():
            found[name.lower()] = found.get(name.lower(), ()) + paths
        return found


def find_references(path: Path) -> References:
    """The structures in a folder, or those that a table with the columns `complex` and `path`
    names, whose paths are relative to its own folder.

    Raises ValueError naming the file or folder: absent, damaged, without structures.
    """
    with reading(str(path)):
        files = _in_folder(path) if path.is_dir() else _in_table(path)
    if not files:
        raise ValueError(f"{path}: no structures ({', '.join(ENDINGS)}, gzipped or not)")
    return References(path, files)


def _in_folder(folder: Path) -> dict[str, tuple[Path, ...]]:
    found: dict[str, tuple[Path, ...]] = {}
    for file in sorted(folder.iterdir()):
        stem = _stem(file.name)
        if stem and file.is_file():
            found[stem] = (*found.get(stem, ()), file)
    return found


def _stem(name: str) -> str:
    """The name of a structure's file without its endings; empty for other files."""
    lower = name.lower()
    for packed in ("", *PACKED):
        for ending in ENDINGS:
            if lower.endswith(ending + packed):
                return name[: -len(ending + packed)]
    return ""


def _in_table(path: Path) -> dict[str, tuple[Path, ...]]:
    table = read_table(path, read_text(path))
    try:
        table.check({"complex", "path"})
    except ValueError as error:
        raise ValueError(
            f"neither a folder nor a table with the columns complex and path: {error}"
        ) from error
    found: dict[str, tuple[Path, ...]] = {}
    for row in table.rows():
        name = row.get("complex")
        file = row.get("path")
        if name and file:
            found[name] = (*found.get(name, ()), path.parent / file)
    return found
