"""The command `foldcp export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from foldcp.pipeline.commands.arguments import ConfigFile, Input, Overrides
from foldcp.pipeline.config import load
from foldcp.pipeline.input_arguments import with_input_options
from foldcp.pipeline.inputs.input_options import InputOptions
from foldcp.pipeline.inputs.input_spec import InputSpec
from foldcp.printable import printable


@with_input_options
def export(
    options: InputOptions,
    input: Input,
    to: Annotated[
        Literal["boltz", "alphafold3", "csv", "cytoscape", "afdb"],
        typer.Option(
            help="The format: Boltz's YAML or AlphaFold 3's JSON of an input; of a run its tables "
            "as CSV, its protein pairs as GraphML for Cytoscape, or its structures in the layout "
            "of Boltz 2 or of AlphaFold DB."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the files.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    config: ConfigFile = None,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Write every complex as an input of another tool, a file each. What the format cannot say is
    told on stderr. Exit code 1 when some complexes were not written. Where INPUT is the folder of a
    run, write its tables, the network of its protein pairs, or its structures.

    \b
    foldcp export demo-run --to csv --out tables
    foldcp export demo-run --to cytoscape --out network
    foldcp export demo-run --to boltz --out boltz-results
    foldcp export demo-run --to afdb --out alphafold-db
    foldcp export corum.tsv.gz --sequences uniprot.fasta.gz --to boltz --out yamls
    foldcp export job.json --to boltz --out yamls --overwrite
    """
    from foldcp.pipeline.export import export as write
    from foldcp.pipeline.exporting.export_run import is_run

    if to in ("csv", "cytoscape", "afdb") or (to == "boltz" and is_run(input)):
        _export_run(input, to, out, overwrite)
        return
    if is_run(input):
        raise ValueError(f"{input}: the folder of a run, which cannot be exported as {to}")
    settings = load(config, set_)
    spec = InputSpec(input, options, max_bytes=settings.limits.input_bytes)
    exported = write(spec, to, out, overwrite)
    for note, count in exported.notes.items():
        print(f"{note} (in {count} of {exported.num_written} files)", file=sys.stderr)
    for name, reason in exported.invalid:
        print(printable(f"not written: {name}: {reason}"), file=sys.stderr)
    print(printable(f"{exported.num_written} files in {out}"))
    if exported.invalid:
        raise typer.Exit(1)


def _export_run(
    run: Path, to: Literal["csv", "cytoscape", "boltz", "afdb"], out: Path, overwrite: bool
) -> None:
    """Export a run; tables are told by name, structures by number."""
    from foldcp.pipeline.exporting.export_run import export_run

    exported = export_run(run, to, out, overwrite)
    for note, count in exported.notes.items():
        print(f"{note} (of {count} complexes)", file=sys.stderr)
    if exported.num_without_result:
        print(f"{exported.num_without_result} complexes have no result", file=sys.stderr)
    for name, reason in exported.not_written:
        print(printable(f"not written: {name}: {reason}"), file=sys.stderr)
    if to in ("csv", "cytoscape"):
        for path in exported.paths:
            print(printable(str(path)))
    else:
        print(printable(f"{len(exported.paths)} files in {out}"))
    if exported.not_written:
        raise typer.Exit(1)
