"""The command `foldcp evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foldcp.printable import printable

if TYPE_CHECKING:
    from foldcp.pipeline.evaluation.evaluate import Evaluation

NUM_REASONS = 10  # of complexes without measures that are printed
DEFAULT_IDENTITY = 0.8


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    references: Annotated[
        Path,
        typer.Option(
            metavar="DIR|FILE",
            help="Folder of structures (mmCIF, BinaryCIF, PDB) named by complex, or a table with "
            "the columns complex and path.",
        ),
    ],
    min_identity: Annotated[
        float,
        typer.Option(
            metavar="R", help="Least sequence identity of chains that are assigned to each other."
        ),
    ] = DEFAULT_IDENTITY,
) -> None:
    """Compare the structures of a run with experimental ones: DockQ, fnat, iRMSD, LRMSD and lDDT of
    each interface, TM-score and lDDT of each complex, RMSD and lDDT-PLI of ligands.

    Chains are assigned by sequence, copies so that DockQ is largest; chain names, numbering,
    missing residues and further chains of a reference do not matter. Writes the tables `evaluation`
    (a row per sample and interface) and `evaluation_complexes`, in place of earlier ones; complexes
    whose structures and reference are the same are not compared again. The view
    `score_correlation` has the correlation of every score with DockQ.

    Exit code 0, 1 when a reference or a structure could not be compared, 2 for a mistake in the
    command or its files.

    \b
    foldcp evaluate screen-run --references pdb/
    foldcp evaluate screen-run --references references.tsv --min-identity 0.95
    foldcp query screen-run "SELECT name, chain_a, chain_b, max(dockq) FROM evaluation GROUP BY ALL"
    foldcp query screen-run "FROM score_correlation ORDER BY spearman DESC"
    """
    from tqdm import tqdm

    from foldcp.pipeline.evaluation.evaluate import NO_REFERENCE
    from foldcp.pipeline.evaluation.evaluate import evaluate as compare

    with tqdm(desc="complexes", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = compare(run, references, min_identity, progress)
    print(_summary(found))
    reasons = found.complexes[found.complexes["reason"].ne("")]
    failed = reasons[reasons["reason"].ne(NO_REFERENCE)]
    _print_reasons(failed)
    raise typer.Exit(1 if len(failed) else 0)


def _summary(found: Evaluation) -> str:
    """Counts of complexes, and means of measures."""
    from foldcp.pipeline.evaluation.evaluate import NO_REFERENCE
    from foldcp.pipeline.evaluation.sample import CLASSES

    complexes = found.complexes
    samples = complexes[complexes["reason"].eq("")]
    num_evaluated = samples["key"].nunique()
    num_without = int(complexes["reason"].eq(NO_REFERENCE).sum())
    num_failed = complexes["key"].nunique() - num_evaluated - num_without
    lines = [
        f"{num_evaluated:,} complexes evaluated ({found.num_reused:,} of them before), "
        f"{num_without:,} without a reference, {num_failed:,} failed"
    ]
    dockq = found.interfaces["dockq"].dropna()
    if len(dockq):
        shares = [
            f"{(dockq >= least).mean():.0%} at least {least:.2f}"
            for least in reversed(CLASSES.values())
        ]
        lines.append(
            f"DockQ of {len(dockq):,} interfaces: mean {dockq.mean():.3f}; {', '.join(shares)}"
        )
    measures = {
        "TM-score": "tm_score",
        "lDDT": "lddt",
        "interface lDDT": "interface_lddt",
        "ligand RMSD (Å)": "ligand_rmsd",
        "lDDT-PLI": "lddt_pli",
    }
    means = [
        f"{label} {samples[name].mean():.3f}"
        for label, name in measures.items()
        if samples[name].notna().any()
    ]
    if means:
        lines.append(f"means over {len(samples):,} samples: {', '.join(means)}")
    return "\n".join(lines)


def _print_reasons(failed: Any) -> None:
    """Each complex that could not be compared and why, once for all its samples, up to a number of
    lines, on stderr.
    """
    reasons = failed[["name", "reason"]].drop_duplicates()
    for name, reason in reasons.head(NUM_REASONS).itertuples(index=False):
        print(printable(f"  failed: {name}: {reason}"), file=sys.stderr)
    if (num_more := len(reasons) - NUM_REASONS) > 0:
        print(f"  .. and {num_more:,} more in the table evaluation_complexes", file=sys.stderr)
