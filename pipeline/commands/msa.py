"""The command `foldcp msa`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foldcp.pipeline.commands.arguments import Input
from foldcp.pipeline.input_arguments import with_input_options
from foldcp.pipeline.inputs.input_options import InputOptions
from foldcp.pipeline.inputs.input_spec import InputSpec
from foldcp.printable import printable

if TYPE_CHECKING:  # the search takes a moment to import, and `plan` does not need it
    from foldcp.pipeline.msa_search.search import SearchFailure

_NUM_REASONS = 10  # of failed sequences and of invalid complexes that are printed


@with_input_options
def msa(
    options: InputOptions,
    input: Input,
    out: Annotated[
        Path,
        typer.Option(metavar="MSAS", help="Folder of alignments; adds to an existing one."),
    ],
    from_: Annotated[
        list[Path],
        typer.Option(
            "--from",
            metavar="DIR",
            help=(
                "Import alignments that other programs have made, found by their queries; may be "
                "repeated."
            ),
        ),
    ] = [],  # noqa: B006
    mmseqs: Annotated[
        Path | None,
        typer.Option(metavar="DB", help="Search a database of MMseqs2 on this machine."),
    ] = None,
    environmental: Annotated[
        Path | None,
        typer.Option(metavar="DB", help="A second database of MMseqs2, such as metagenomes."),
    ] = None,
    jackhmmer: Annotated[
        Path | None,
        typer.Option(metavar="FASTA", help="Search a FASTA file with jackhmmer."),
    ] = None,
    server: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Ask a ColabFold server, to which the sequences are sent.",
        ),
    ] = "",
    threads: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Threads of the search; 0: one per core."),
    ] = 0,
    unpaired: Annotated[
        bool,
        typer.Option(
            "--unpaired",
            help="Do not ask the server for the paired alignment of every complex, too.",
        ),
    ] = False,
    gpu_server: Annotated[
        bool,
        typer.Option("--gpu-server", help="Let MMseqs2 search on its running GPU server."),
    ] = False,
    missing: Annotated[
        bool,
        typer.Option(
            "--missing",
            help="Only proteins for which neither the input nor --msas has an alignment.",
        ),
    ] = False,
) -> None:
    """Make the alignment of every protein of an input, each distinct sequence once. Needs no GPU.
    The same command resumes.

    Exit code 0 when every sequence has an alignment, 1 when some have none (the next run tries
    again), 2 for a mistake in the command or its files, 128 + signal when a signal stopped it.

    \b
    foldcp msa corum.tsv.gz --sequences uniprot.fasta.gz --out msas --mmseqs uniref30_2302_db
    foldcp msa complexes.fasta --out msas --jackhmmer uniref90.fasta --threads 8
    foldcp msa complexes.fasta --out msas --from alphafold_output --from old_msas
    """
    from foldcp.pipeline.msa_search.command import MsaMethod, make_alignments
    from foldcp.pipeline.msa_search.programs import StoppedError

    method = MsaMethod(
        tuple(from_), mmseqs, environmental, jackhmmer, server, threads, gpu_server, unpaired
    )
    try:
        summary = make_alignments(InputSpec(input, options), out, method, missing)
    except StoppedError as error:
        print("interrupted; the same command resumes from here", file=sys.stderr)
        raise typer.Exit(128 + error.number) from None
    print(f"{printable(str(out))}: {summary}")
    _print_lines("invalid", [f"{record.name}: {record.reason}" for record in summary.invalid])
    _print_lines("failed", _describe_failures(summary.failures))
    raise typer.Exit(1 if summary.failures else 0)


def _print_lines(outcome: str, reasons: Sequence[str]) -> None:
    """A line for each reason, up to a number of them, on stderr."""
    for reason in reasons[:_NUM_REASONS]:
        print(printable(f"  {outcome}: {reason}"), file=sys.stderr)
    if (num_more := len(reasons) - _NUM_REASONS) > 0:
        print(f"  .. and {num_more:,} more", file=sys.stderr)


def _describe_failures(failures: Sequence[SearchFailure]) -> list[str]:
    """Each reason with the first sequence, or sequences of a complex, that failed for it."""
    by_reason: dict[str, list[str]] = {}
    for failure in failures:
        by_reason.setdefault(failure.reason, []).append(failure.sequence)
    lines = []
    for reason, sequences in by_reason.items():
        first = sequences[0]
        num_residues = len(first.replace(":", ""))
        start = first if len(first) <= 30 else f"{first[:30]}.."
        others = f" and {len(sequences) - 1:,} more" if len(sequences) > 1 else ""
        lines.append(f"{start} ({num_residues} residues){others}: {reason}")
    return lines
