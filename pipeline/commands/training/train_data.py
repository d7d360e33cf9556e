"""The command `foldcp train-data`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foldcp.printable import printable

if TYPE_CHECKING:
    from foldcp.pipeline.training_data.prepare import Summary

NUM_REASONS = 10  # of structures that were dropped that are printed


def train_data(
    input: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="Folder of mmCIF files (.cif, .cif.gz), or a text file with a path a line.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of prepared data; adds to an existing one.")
    ],
    held_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Names of structures to hold out, one a line."),
    ] = None,
    msas: Annotated[
        list[Path],
        typer.Option(metavar="DIR", help="Folder of alignments by sequence; may be repeated."),
    ] = [],  # noqa: B006
    asymmetric_unit: Annotated[
        bool,
        typer.Option(
            "--asymmetric-unit", help="Not the first biological assembly, but the asymmetric unit."
        ),
    ] = False,
    before: Annotated[
        str,
        typer.Option(
            metavar="DATE",
            help="Only structures released (else deposited) before; `any` for all.",
        ),
    ] = "2023-06-01",
    undated: Annotated[
        bool, typer.Option("--undated", help="Keep structures whose files have no date.")
    ] = False,
    max_resolution: Annotated[
        float, typer.Option(metavar="Å", help="Largest resolution; files without one are kept.")
    ] = 9.0,
    max_chains: Annotated[int, typer.Option(metavar="N", help="Most chains, ligands too.")] = 300,
    max_residues: Annotated[
        int, typer.Option(metavar="N", help="Most residues of polymers; 0: any number.")
    ] = 0,
    ligands: Annotated[bool, typer.Option(help="Whether ligands are kept.")] = True,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes.")] = 1,
) -> None:
    """Prepare experimental structures to train on: read, filter and cluster them once. Needs no
    GPU. The same command resumes.

    Filters are those published for Boltz-2. Chains are dropped when fewer than 4 residues are
    resolved, when all are unknown, when consecutive CA atoms are further apart than 10 Å, and when
    30% of the atoms lie within 1.7 Å of another chain. The folder has `index.jsonl`, a line for
    each structure with its chains, clusters and split, or the reason why it was dropped, and a
    safetensors file for each.

    Exit code 0, 1 when a file could not be read, 2 for a mistake in the command or its files.

    \b
    foldcp train-data pdb/ --out data --held-out held_out.txt --workers 8
    foldcp train-data files.txt --out data --before any --msas msas/ --max-residues 5000
    """
    from tqdm import tqdm

    from foldcp.datasets.training.filters import FilterSettings
    from foldcp.pipeline.training_data.prepare import UNREADABLE, PrepareSettings, prepare

    filters = FilterSettings(
        before="" if before == "any" else before,
        undated=undated,
        max_resolution=max_resolution,
        max_chains=max_chains,
        max_residues=max_residues,
        ligands=ligands,
    )
    settings = PrepareSettings(assembly=not asymmetric_unit, filters=filters)
    with tqdm(desc="structures", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        summary = prepare(
            input,
            out,
            settings,
            held_out=held_out,
            msas=msas,
            workers=workers,
            progress=progress,
        )
    print("\n".join(_describe(summary)))
    _print_reasons(summary)
    raise typer.Exit(1 if summary.dropped.get(UNREADABLE) else 0)


def _describe(summary: Summary) -> list[str]:
    """Counts of structures by split, of chains, and of what each filter dropped."""
    used = [row for row in summary.rows if not row.dropped_by]
    splits = Counter(row.split for row in used)
    chains = [chain for row in used for chain in row.chains]
    clusters = {chain.cluster for chain in chains}
    kinds = Counter(chain.kind for chain in chains)
    lines = [
        f"{len(used):,} of {len(summary.rows):,} structures ({summary.num_reused:,} prepared "
        "before): " + ", ".join(f"{count:,} {split}" for split, count in sorted(splits.items())),
        f"{len(chains):,} chains in {len(clusters):,} clusters: "
        + ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
        + f"; {sum(bool(chain.msa) for chain in chains):,} with an alignment",
    ]
    for what, counts in (
        ("structures", summary.dropped),
        ("chains", summary.dropped_chains),
    ):
        if counts:
            listed = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
            lines.append(f"dropped {what}: {listed}")
    if num_similar := summary.num_similar:
        lines.append(f"{num_similar:,} train structures have a chain like one that is held out")
    if summary.unknown_held_out:
        names = ", ".join(summary.unknown_held_out[:NUM_REASONS])
        lines.append(f"held out, but not in the input: {names}")
    return [printable(line) for line in lines]


def _print_reasons(summary: Summary) -> None:
    """A line for each dropped structure, up to a number of them, on stderr."""
    dropped = [row for row in summary.rows if row.dropped_by]
    for row in dropped[:NUM_REASONS]:
        print(printable(f"  {row.dropped_by}: {row.name}: {row.reason}"), file=sys.stderr)
    if (num_more := len(dropped) - NUM_REASONS) > 0:
        print(f"  .. and {num_more:,} more in index.jsonl", file=sys.stderr)
