"""Conversion of a checkpoint into a safetensors file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from foldcp.checkpoint.identity import checkpoint_identity, is_untrained, weights_warning
from foldcp.checkpoint.load import check_weights, read_checkpoint
from foldcp.checkpoint.safetensors_file import write_safetensors
from foldcp.config import to_hyper_parameters
from foldcp.files import describe_error
from foldcp.pipeline.fetch import find_weights
from foldcp.pipeline.output_paths import check_file_writable
from foldcp.pipeline.storage.filesystem import FileSystem


def convert(source: str, target: Path, overwrite: bool, bf16: bool = False) -> str:
    """Write the weights of a checkpoint, averaged (EMA) ones where it has them, and the sizes of
    its network to a safetensors file.

    The file has its name only once it is complete. Equal checkpoints give equal bytes.

    Args:
        source: path of a checkpoint, or the name of fetched weights.
        target: a name that ends in .safetensors.
        overwrite: whether to replace a file that has this name.
        bf16: whether to round the weights to bfloat16.

    Returns:
        A summary in one line.

    Raises:
        ValueError: naming the file, when the checkpoint cannot be loaded or the new file cannot be
            written.
    """
    _check_arguments(source, target, overwrite)
    path = Path(find_weights(source))
    identity = checkpoint_identity(path)
    if weights_warning(identity):
        raise ValueError(
            f"{source}: is safetensors already, and nothing would show what a copy is of"
        )
    architecture, weights = read_checkpoint(path)
    check_weights(path, architecture, weights)
    if bf16:
        weights = {name: weight.bfloat16() for name, weight in weights.items()}
    metadata = {
        "hyper_parameters": to_hyper_parameters(architecture),
        "source": identity,
    }

    def write(file: Path) -> None:
        write_safetensors(file, metadata, weights)

    filesystem = FileSystem()
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as folder:
            temporary = Path(folder) / target.name
            filesystem.write(temporary, write)
            filesystem.rename(temporary, target)
            filesystem.sync(target.parent)
    except OSError as error:
        raise ValueError(f"{target}: cannot be written: {describe_error(error)}") from error
    megabytes = target.stat().st_size / 1e6
    new_identity = checkpoint_identity(target)
    return f"{target}: {len(weights)} weights, {megabytes:,.1f} MB, {new_identity}"


def _check_arguments(source: str, target: Path, overwrite: bool) -> None:
    """Raise ValueError for a source or a target that cannot be used."""
    if is_untrained(source):
        raise ValueError(
            f"{source}: random weights are not converted, as nothing would show that they are "
            "random"
        )
    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: expected a name that ends in .safetensors")
    check_file_writable(target)
    if target.exists() and not overwrite:
        raise ValueError(f"{target}: exists; --overwrite replaces it")
