"""The command line: `foldcp plan | score | fold | report`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from foldcp.complex import Record
from foldcp.pipeline.config import load

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

Input = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT",
        help="CORUM, Complex Portal or hu.MAP table, FASTA, ColabFold CSV, Boltz YAML, or a folder of FASTA and YAML.",
    ),
]
Sequences = Annotated[
    Path | None,
    typer.Option(metavar="FASTA", help="Sequences by UniProt accession, for tables that list accessions."),
]
Msas = Annotated[Path | None, typer.Option(metavar="DIR", help="Alignments (a3m or Boltz CSV) of the sequences.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="YAML with settings that differ from the defaults.")
]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as model.samples=5; repeat at will.")
]
Organism = Annotated[str, typer.Option(metavar="NAME", help="Only complexes of this organism, such as Human.")]


def main() -> None:
    """Run a command; a user's mistake is one line and exit code 2."""
    try:
        app()
    except ValueError as error:
        sys.exit(_complain(error))


def _complain(error: ValueError) -> int:
    print("foldcp: " + " ".join(str(error).split()), file=sys.stderr)
    return 2


@app.callback()
def about() -> None:
    """Score whole databases of protein complexes with a co-folding model of the Boltz-2 architecture, each complex
    on as many GPUs as it needs. `foldcp COMMAND --help` has examples."""


@app.command()
def plan(
    input: Input,
    sequences: Sequences = None,
    msas: Msas = None,
    hardware: Annotated[str, typer.Option(metavar="NAME|FILE", help="One of configs/hardware, or a file.")] = "h200",
    gpus: Annotated[int, typer.Option(min=0, metavar="N", help="GPUs in all; 0: one node.")] = 0,
    organism: Organism = "",
    config: ConfigFile = None,
    set_: Overrides = [],  # noqa: B006
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """What fits on which group of GPUs, bytes, seconds, and what cannot run. Folds nothing and needs no GPU.

    \b
    foldcp plan corum.tsv.gz --sequences uniprot.fasta.gz
    foldcp plan corum.tsv.gz --sequences uniprot.fasta.gz --hardware a100-40 --gpus 16 --set model.samples=5
    foldcp plan corum.tsv.gz --sequences uniprot.fasta.gz --json | jq '.too_large'
    """
    from foldcp.pipeline.costs import Costs, load_hardware
    from foldcp.pipeline.plan import make_plan, nodes_of, to_json, to_text
    from foldcp.pipeline.tasks import make_work

    settings, machine = load(config, set_), load_hardware(hardware)
    work = make_work(_records(input, sequences, msas, organism), settings, "plan")
    nodes = nodes_of(gpus or machine.gpus_per_node, machine.gpus_per_node)
    found = make_plan(work, Costs(machine, settings), nodes, settings.run)
    print(to_json(found) if json else to_text(found))


def _records(input: Path, sequences: Path | None, msas: Path | None, organism: str) -> Iterator[Record]:
    from foldcp.datasets.reader import read

    records = read(input, sequences=sequences, msas=msas)
    if organism:
        wanted = organism.strip().lower()
        records = (record for record in records if record.organism.strip().lower().startswith(wanted))
    first = next(records, None)
    if first is None:
        raise ValueError(f"{input}: no complex" + (f" of organism {organism!r}" if organism else ""))
    return itertools.chain([first], records)
