"""Names of checkpoints: the content hash of a file, or `untrained:` and a size."""

from __future__ import annotations

from pathlib import Path

from foldcp.config import UNTRAINED, Architecture
from foldcp.files import file_sha256, is_regular, reading

UNTRAINED_PREFIX = "untrained:"
# The identity of the weights in datasets/demo.
DEMO = "sha256:242f12760f0eaa8862fd21f5334a3eb7824fedc0431ff8f7fd3551f9e8bc40ab"


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


def weights_warning(identity: str) -> str:
    """What must be said of scores of the weights of a `checkpoint_identity`; empty for most."""
    if is_untrained(identity):
        return "random weights, so the scores and structures mean nothing"
    if identity == DEMO:
        return (
            "the demo network, which knows 65 structures by heart, so scores and structures of "
            "other proteins mean nothing"
        )
    return ""


def untrained_architecture(name: str) -> Architecture:
    """The architecture of `untrained:tiny` or `untrained:boltz2`; ValueError for another size."""
    size = name.removeprefix(UNTRAINED_PREFIX)
    if size not in UNTRAINED:
        known = ", ".join(UNTRAINED_PREFIX + size for size in UNTRAINED)
        raise ValueError(f"unknown untrained network {name!r}; expected one of {known}")
    return UNTRAINED[size]
