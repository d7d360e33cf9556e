"""Conversion of a checkpoint into a safetensors file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from foldcp.checkpoint.identity import checkpoint_identity, is_untrained
from foldcp.checkpoint.load import check_weights, read_checkpoint
from foldcp.checkpoint.safetensors_file import write_safetensors
from foldcp.config import to_hyper_parameters
from foldcp.files import describe_error
from foldcp.pipeline.fetch import find_weights
from foldcp.pipeline.storage.filesystem import FileSystem


def convert(source: str, target: Path, overwrite: bool) -> str:
    """Write the weights of a checkpoint, averaged ones where it has them, and the sizes of its
    network; a summary.

    The file has its name once it is whole. Equal checkpoints give equal bytes.

    Args:
        source: path of a checkpoint, or the name of fetched weights.
        target: a name that ends in .safetensors.
        overwrite: whether to replace a file that has this name.

    Raises:
        ValueError: naming the file, when the checkpoint cannot be loaded or the new file not be
        written.
    """
    _refuse(source, target, overwrite)
    path = Path(find_weights(source))
    identity = checkpoint_identity(path)
    architecture, weights = read_checkpoint(path)
    check_weights(path, architecture, weights)
    about = {"hyper_parameters": to_hyper_parameters(architecture), "source": identity}
    disk = FileSystem()
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as aside:
            new = Path(aside) / target.name
            disk.write(new, lambda file: write_safetensors(file, about, weights))
            disk.rename(new, target)
            disk.sync(target.parent)
    except OSError as error:
        raise ValueError(f"{target}: cannot be written: {describe_error(error)}") from error
    return (
        f"{target}: {len(weights)} weights, {target.stat().st_size / 1e6:,.1f} MB, "
        f"{checkpoint_identity(target)}"
    )


def _refuse(source: str, target: Path, overwrite: bool) -> None:
    if is_untrained(source):
        raise ValueError(
            f"{source}: random weights are not converted, as nothing would tell that "
            "they are random"
        )
    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: expected a name that ends in .safetensors")
    if not target.parent.is_dir():
        raise ValueError(f"{target}: there is no folder {target.parent}")
    if target.is_dir():
        raise ValueError(f"{target}: is a folder")
    if target.exists() and not overwrite:
        raise ValueError(f"{target}: exists; --overwrite replaces it")
