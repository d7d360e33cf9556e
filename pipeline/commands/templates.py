"""The command `foldcp templates`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from foldcp.pipeline.commands.arguments import Input
from foldcp.pipeline.input_arguments import with_input_options
from foldcp.pipeline.inputs.input_options import InputOptions
from foldcp.pipeline.inputs.input_spec import InputSpec, records
from foldcp.printable import printable


@with_input_options
def templates(
    options: InputOptions,
    input: Input,
    out: Annotated[
        Path,
        typer.Option(metavar="TEMPLATES", help="Folder of the templates; resumes an existing one."),
    ],
    structures: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of mmCIF files, gzipped or not.")
    ],
    max_date: Annotated[
        str,
        typer.Option(
            metavar="YYYY-MM-DD",
            help="Only structures that were released (else deposited) by then.",
        ),
    ] = "",
    max_templates: Annotated[
        int, typer.Option(metavar="N", min=1, max=20, help="Templates of a sequence at most.")
    ] = 4,
    max_evalue: Annotated[
        float, typer.Option(metavar="E", min=0, help="The largest e-value of a hit.")
    ] = 1e-3,
    min_coverage: Annotated[
        float,
        typer.Option(metavar="SHARE", min=0, max=1, help="Of the sequence that is aligned."),
    ] = 0.1,
    max_identity: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Of residues that are identical; 0.95 leaves out the protein's own structures.",
        ),
    ] = 1.0,
) -> None:
    """Search templates of every protein sequence among structures, with MMseqs2. The same command
    resumes an interrupted search; `--templates` of the other commands reads the folder.

    \b
    foldcp templates corum.tsv.gz --sequences uniprot.fasta.gz --structures pdb/ \\
        --max-date 2021-09-30 --out templates
    foldcp score corum.tsv.gz --sequences uniprot.fasta.gz --templates templates \\
        --checkpoint boltz2 --out run
    """
    from foldcp.pipeline.msa_search.programs import StoppedError
    from foldcp.pipeline.template_search.mmseqs import Limits
    from foldcp.pipeline.template_search.search_templates import search_templates

    def warn(line: str) -> None:
        print("foldcp: " + printable(line), file=sys.stderr)

    limits = Limits(max_templates, max_evalue, min_coverage, max_identity, max_date)
    try:
        counts = search_templates(records(InputSpec(input, options)), structures, out, limits, warn)
    except StoppedError as error:
        print("interrupted; the same command resumes from here", file=sys.stderr)
        raise typer.Exit(128 + error.number) from None
    print(
        f"{counts.searched} sequences searched, {counts.stored} were there; "
        f"{counts.with_templates} have templates\n{printable(str(out))}"
    )
