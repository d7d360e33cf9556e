"""The command line: `foldcp plan | score | fold | report | fetch | convert | bench`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foldcp.datasets.reader import KNOWN_FORMATS
from foldcp.pipeline.config import load
from foldcp.pipeline.execution.signals import end_process
from foldcp.pipeline.inputs.input_spec import InputSpec, records
from foldcp.pipeline.inputs.remarks import remarks
from foldcp.pipeline.terminal import close_stdout, guard_streams
from foldcp.printable import printable

if TYPE_CHECKING:  # Ray and torch take seconds to import, and `plan` needs neither
    from foldcp.pipeline.execution.run import Summary

# environment variable: how often in a row the run was started again, and what was done
RESTARTS = "FOLDCP_RESTARTS"
MAX_RESTARTS = 3  # in a row, without one complex done in between

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
        help=f"{KNOWN_FORMATS}.",
    ),
]
Sequences = Annotated[
    Path | None,
    typer.Option(
        metavar="FASTA",
        help="Sequences by UniProt accession, for tables that list accessions.",
    ),
]
Msas = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Alignments (a3m or Boltz CSV); without, each chain stands alone.",
    ),
]
Checkpoint = Annotated[
    str,
    typer.Option(
        metavar="PATH",
        help=(
            "Weights: a Boltz-2 .ckpt or .safetensors file; untrained:tiny and untrained:boltz2 "
            "are random ones."
        ),
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="YAML with settings that differ from the defaults.",
    ),
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One setting, such as model.samples=5; repeat at will.",
    ),
]
Organism = Annotated[
    str,
    typer.Option(metavar="NAME", help="Only complexes of this organism, such as Human."),
]
Limit = Annotated[
    int,
    typer.Option(metavar="N", min=0, help="Only the N smallest complexes, for a first look."),
]
HardwareFile = Annotated[
    str,
    typer.Option("--hardware", metavar="NAME|FILE", help="One of configs/hardware, or a file."),
]


def main() -> None:
    """Run a command; a user's mistake is one line and exit code 2."""
    guard_streams()
    try:
        app()
    except ValueError as error:
        print("foldcp: " + printable(" ".join(str(error).split())), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # the reader of stdout has seen enough
        sys.exit(0)
    finally:
        close_stdout()


@app.callback()
def about() -> None:
    """Score whole databases of protein complexes with a co-folding model of the Boltz-2
    architecture, each complex on as many GPUs as it needs. `foldcp COMMAND --help` has examples.
    """


@app.command()
def plan(
    input: Input,
    sequences: Sequences = None,
    msas: Msas = None,
    hardware: HardwareFile = "h200",
    gpus: Annotated[int, typer.Option(min=0, metavar="N", help="GPUs in all; 0: one node.")] = 0,
    organism: Organism = "",
    limit: Limit = 0,
    config: ConfigFile = None,
    set_: Overrides = [],  # noqa: B006
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """What fits on which group of GPUs, bytes, seconds, and what cannot run. Folds nothing and
    needs no GPU.

    \b
    foldcp plan corum.tsv.gz --sequences uniprot.fasta.gz
    foldcp plan corum.tsv.gz --sequences uniprot.fasta.gz --hardware a100-40 --gpus 16
    foldcp plan corum.tsv.gz --sequences uniprot.fasta.gz --json | jq '.too_large'
    """
    from foldcp.pipeline.inputs.tasks import make_work, smallest
    from foldcp.pipeline.planning.plan import make_plan, split_into_nodes, to_json, to_text
    from foldcp.pipeline.scheduling.cost_model import CostModel
    from foldcp.pipeline.scheduling.hardware import load_hardware

    settings = load(config, set_)
    machine = load_hardware(hardware)
    limits = settings.limits
    sources = InputSpec(
        input,
        sequences,
        msas,
        organism=organism,
        limit=limit,
        max_bytes=limits.input_bytes,
    )
    work = smallest(make_work(records(sources), settings, "plan"), limit)
    if not work.tasks and len(work.invalid) == 1 and not input.is_dir():
        raise ValueError(f"{input}: {work.invalid[0].reason}")
    for line in remarks(sources, [task.complex for task in work.tasks]):
        print(line, file=sys.stderr)
    nodes = split_into_nodes(gpus or machine.gpus_per_node, machine.gpus_per_node)
    found = make_plan(work, CostModel(machine, settings), nodes, settings.run)
    print(to_json(found) if json else to_text(found))


@app.command()
def score(
    input: Input,
    out: Annotated[
        Path,
        typer.Option(metavar="RUN", help="Folder of the run; resumes an earlier run there."),
    ],
    sequences: Sequences = None,
    msas: Msas = None,
    checkpoint: Checkpoint = "",
    organism: Organism = "",
    limit: Limit = 0,
    config: ConfigFile = None,
    set_: Overrides = [],  # noqa: B006
    hardware: HardwareFile = "",
    gpus: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="GPUs (or CPU ranks) to use; 0: all."),
    ] = 0,
    address: Annotated[
        str,
        typer.Option(metavar="HOST", help="A running Ray cluster, or `auto` to find it."),
    ] = "",
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="Print what the ranks print, and tracebacks."),
    ] = False,
) -> None:
    """Fold every complex and store structures and interface scores; the same command again resumes.

    Exit code 0 when every complex that can be built has a result, 1 when some failed (the table
    `attempts` says why), 2 for a mistake in the command or its files, 3 when the run had to stop (a
    full disk, no node left), 128 + signal when it was stopped; after 3 and a signal the same
    command resumes.

    \b
    foldcp score datasets/demo/complexes.tsv --sequences datasets/demo/sequences.fasta \\
        --out demo-run --checkpoint untrained:tiny
    foldcp score corum.tsv.gz --sequences uniprot.fasta.gz --organism Human --msas msas/ \\
        --checkpoint boltz2_conf.ckpt --out corum-run --set model.samples=5 --set write=boltz
    foldcp score pairs.fasta --checkpoint boltz2_conf.ckpt --out run --limit 10
    """
    from foldcp.pipeline.execution.run import RunOptions
    from foldcp.pipeline.reporting.report import format_best
    from foldcp.pipeline.score_database import score_input

    settings = load(config, set_)
    sources = InputSpec(
        input, sequences, msas, checkpoint, organism, limit, settings.limits.input_bytes
    )
    summary = score_input(sources, settings, out, RunOptions(address, gpus, hardware, verbose))
    if summary.ray_lost and not summary.signal:
        _start_again(summary)
    try:
        print(format_best(out))
        page = _write_page(out) or "not written"
        place = printable(str(out))
        print(
            f"\ntables      {place}/tables\nstructures  {place}/structures\nreport      "
            f"{printable(str(page))}\n"
        )
        _tell(summary, out)
    except (
        OSError
    ) as error:  # what was computed is stored; that nobody reads this changes nothing of it
        print(f"foldcp: the summary cannot be printed: {error.strerror}", file=sys.stderr)
    if not summary.is_complete:
        close_stdout()
        end_process(summary.exit_code)
    raise typer.Exit(summary.exit_code)


def _start_again(summary: Summary) -> None:
    """Replace this process by a new one with the same command: the only way to get rid of a dead
    Ray, which ends the process a minute later. Returns when that has not helped several times in a
    row.
    """
    count, num_done = map(int, os.environ.get(RESTARTS, "0:0").split(":"))
    count = 0 if summary.num_done > num_done else count
    if count == MAX_RESTARTS:
        return
    print(printable(f"foldcp: {summary.stopped}; starting it again"), file=sys.stderr)
    os.environ[RESTARTS] = f"{count + 1}:{summary.num_done}"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _write_page(out: Path) -> Path | None:
    """The report's page; without it, as on a disk that is full or read-only, a line says why."""
    from foldcp.pipeline.reporting.report import REPORT, write_report

    try:
        return write_report(out)
    except OSError as error:
        line = f"{out / REPORT}: cannot be written: {error.strerror}"
        print("foldcp: " + printable(line), file=sys.stderr)
        return None


def _tell(summary: Summary, out: Path) -> None:
    """How a run ended, in a few lines."""
    words = [
        f"{summary.num_done} done",
        f"{len(summary.failed)} failed",
        f"{len(summary.invalid)} cannot be built",
    ]
    print(", ".join(words))
    for record in summary.invalid[:10]:
        print(
            printable(f"  cannot be built: {record.name}: {record.reason}"),
            file=sys.stderr,
        )
    if len(summary.invalid) > 10:
        print(
            f"  .. and {len(summary.invalid) - 10} more in {out}/tables/complexes",
            file=sys.stderr,
        )
    for failed in summary.failed[:10]:
        print(printable(f"  failed: {failed.task.name}: {failed.reason}"), file=sys.stderr)
    if len(summary.failed) > 10:
        print(
            f"  .. and {len(summary.failed) - 10} more in {out}/tables/complexes",
            file=sys.stderr,
        )
    if summary.stopped:
        print(printable(f"foldcp: stopped: {summary.stopped}"), file=sys.stderr)
    if not summary.is_complete:
        print("interrupted; the same command resumes from here", file=sys.stderr)


@app.command()
def fold(
    input: Input,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder for the files of Boltz's layout."),
    ],
    sequences: Sequences = None,
    msas: Msas = None,
    checkpoint: Checkpoint = "",
    config: ConfigFile = None,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Fold one complex in this process, without Ray, and write Boltz's files and the interface
    scores. On several
    GPUs: torchrun --nproc_per_node 4 -m foldcp fold, with the same arguments.

    \b
    foldcp fold complex.yaml --checkpoint boltz2_conf.ckpt --out folded
    foldcp fold dimer.fasta --checkpoint untrained:tiny --out folded --set model.samples=5
    """
    from foldcp.pipeline.fold_one import fold_one

    settings = load(config, set_)
    sources = InputSpec(input, sequences, msas, checkpoint, max_bytes=settings.limits.input_bytes)
    if summary := fold_one(sources, settings, out):
        print(summary)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or not.")],
) -> None:
    """Write the summary page of a run and print its best interfaces.

    \b
    foldcp report demo-run
    """
    from foldcp.pipeline.reporting.report import format_best

    print(format_best(run))
    if (page := _write_page(run)) is None:
        raise typer.Exit(1)
    print(f"\nreport  {printable(str(page))}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The weights: boltz2 (2.3 GB).")],
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the file; else $FOLDCP_CACHE, else ~/.foldcp.",
        ),
    ] = None,
) -> None:
    """Download released weights and check their SHA-256; the same command again resumes where it
    was cut off.

    \b
    foldcp fetch boltz2
    foldcp fetch boltz2 --to /data/weights
    """
    from foldcp.pipeline.fetch import cache_folder
    from foldcp.pipeline.fetch import fetch as download

    path = download(name, to or cache_folder())
    print(f"{path}: SHA-256 is right\nfoldcp score INPUT --checkpoint {path} --out RUN")


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="IN", help="A Boltz-2 .ckpt file, or the name of fetched weights."),
    ],
    target: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="The new file, whose name ends in .safetensors."),
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that exists.")
    ] = False,
) -> None:
    """Write the weights of a checkpoint as safetensors, a format that cannot hold code. Predictions
    stay the same to the last bit; the new file has a SHA-256 of its own, so a run resumes only with
    the file that it began with.

    \b
    foldcp convert boltz2_conf.ckpt boltz2_conf.safetensors
    foldcp convert boltz2 /data/weights/boltz2.safetensors --overwrite
    """
    from foldcp.pipeline.convert import convert as write

    print(write(source, target, overwrite))


@app.command()
def bench(
    sizes: Annotated[
        str, typer.Option(metavar="N,N", help="Tokens; empty: what suits the device.")
    ] = "",
    folds: Annotated[
        str,
        typer.Option(
            metavar="N,N",
            help="Tokens of whole predictions; empty: the sizes; 0: none.",
        ),
    ] = "",
    precision: Annotated[str, typer.Option(metavar="NAMES", help="Of fp32, mixed and bf16.")] = "",
    ranks: Annotated[
        str, typer.Option(metavar="P,P", help="GPUs at once; empty: 1, then all.")
    ] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, few repeats.")] = False,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The hardware file; else <gpu>.yaml in this folder."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a hardware file that exists.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Measure this machine's GPUs (or its CPU), print how near folds come to the limit, and write a
    hardware file, which `plan` and `score` take with --hardware. On the ranks of
    torchrun: torchrun --nproc_per_node 4 -m foldcp bench.

    \b
    foldcp bench --quick
    foldcp bench --sizes 512,1024,2048 --precision mixed,bf16 --write our-node.yaml
    foldcp bench --sizes 4096,8192 --folds 4096 --ranks 1,2,4 --json > bench.json
    """
    from foldcp.pipeline.bench.run import BenchOptions, print_bench

    options = BenchOptions(sizes, folds, precision, ranks, quick, write, overwrite)
    print_bench(options, json)
