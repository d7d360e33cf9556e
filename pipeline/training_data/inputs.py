"""Input of the preparation of training data: structure files, and lists of names."""

from __future__ import annotations

from pathlib import Path

from foldcp.files import reading, unpacked_name

ENDINGS = (".cif", ".mmcif")


def structure_files(input: Path) -> dict[str, Path]:
    """The mmCIF files of a folder, or those that a file lists, one path a line relative to it, by
    their names without endings, in the order of the names.

    Raises ValueError naming the input: absent, without structures, two files of one name.
    """
    if input.is_dir():
        paths = [path for path in input.iterdir() if unpacked_name(path.name).endswith(ENDINGS)]
    else:
        paths = [input.parent / line for line in read_lines(input)]
    files: dict[str, Path] = {}
    for path in sorted(paths):
        name = unpacked_name(path.name).rpartition(".")[0] or path.name
        if name in files:
            raise ValueError(f"{input}: {files[name]} and {path} have the same name {name!r}")
        files[name] = path
    if not files:
        raise ValueError(f"{input}: has no mmCIF files (.cif, .mmcif, also .gz)")
    return dict(sorted(files.items()))


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without blank ones and comments (#). Raises ValueError naming it."""
    with reading(str(path)):
        lines = [line.strip() for line in path.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
