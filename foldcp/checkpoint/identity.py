"""Names of checkpoints: the content hash of a file, or `untrained:` and a size."""

from __future__ import annotations

from pathlib import Path

from foldcp.config import UNTRAINED, Architecture
from foldcp.files import file_sha256, is_regular, reading

UNTRAINED_PREFIX = "untrained:"


def checkpoint_identity(path: str | Path) -> str:
    """The name of a checkpoint's content: `sha256:` and the hash of the file, or `untrained:tiny`.

    Raises:
        ValueError: naming the file, when it does not exist or cannot be read, or the unknown size.
    """
    if is_untrained(path):
        untrained_architecture(str(path))
        return str(path)
    check_exists(Path(path))
    with reading(str(path)):
        return "sha256:" + file_sha256(Path(path))


def check_exists(path: Path) -> None:
    """Raise ValueError if there is no regular file of this name."""
    if not is_regular(path):
        raise ValueError(f"{path}: no such checkpoint file")


def is_untrained(path: str | Path) -> bool:
    """Whether a name asks for random weights."""
    return str(path).startswith(UNTRAINED_PREFIX)


def untrained_architecture(name: str) -> Architecture:
    """The architecture of `untrained:tiny` or `untrained:boltz2`; ValueError for another size."""
    size = name.removeprefix(UNTRAINED_PREFIX)
    if size not in UNTRAINED:
        known = ", ".join(UNTRAINED_PREFIX + size for size in UNTRAINED)
        raise ValueError(f"unknown untrained network {name!r}; expected one of {known}")
    return UNTRAINED[size]
