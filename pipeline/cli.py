"""Command line of foldcp: a function for each command."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from foldcp.datasets.reader import KNOWN_FORMATS
from foldcp.pipeline.config import RunConfig, load
from foldcp.pipeline.execution.signals import end_process
from foldcp.pipeline.input_arguments import with_input_options
from foldcp.pipeline.inputs.input_options import InputOptions
from foldcp.pipeline.inputs.input_spec import InputSpec, records
from foldcp.pipeline.inputs.input_warnings import input_warnings
from foldcp.pipeline.terminal import close_stdout, guard_streams
from foldcp.printable import printable

if TYPE_CHECKING:  # Ray and torch take seconds to import, and `plan` needs neither
    from foldcp.pipeline.execution.run import Summary

# Environment variable "COUNT:DONE": restarts in a row, and the number of complexes done then.
RESTARTS = "FOLDCP_RESTARTS"
MAX_RESTARTS = 3  # in a row, without one complex done in between
NUM_REASONS = 10  # of failed and of invalid complexes that are printed

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
Checkpoint = Annotated[
    str,
    typer.Option(
        metavar="PATH",
        help=(
            "Weights: a Boltz-2 .ckpt or .safetensors file, or boltz2 once fetched; "
            "untrained:tiny and untrained:boltz2 are random weights."
        ),
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="YAML file of settings that differ from the defaults.",
    ),
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One setting, such as model.samples=5; may be repeated.",
    ),
]
CompatOption = Annotated[
    str,
    typer.Option(
        "--compat",
        metavar="boltz|community|corrected",
        help="Known faults of Boltz 2.2.1 in alignments that are followed: all, those that its "
        "community's fork has, too, or none. Short for --set compat=...",
    ),
]
Limit = Annotated[
    int,
    typer.Option(metavar="N", min=0, help="Only the N smallest complexes, for a first look."),
]
HardwareFile = Annotated[
    str,
    typer.Option("--hardware", metavar="NAME|FILE", help="One of configs/hardware, or a file."),
]
Gpus = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        help="Total GPUs (or CPU ranks); 0: all there are, for plan those of one node.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]


def main() -> None:
    """Run a command; a user's mistake is one line on stderr and exit code 2."""
    guard_streams()
    try:
        app()
    except ValueError as error:
        print("foldcp: " + printable(" ".join(str(error).split())), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # the reader of stdout has closed it
        sys.exit(0)
    finally:
        close_stdout()


@app.callback(invoke_without_command=True)
def about(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Score whole databases of protein complexes with a co-folding model of the Boltz-2
    architecture, each complex on as many GPUs as it needs. `foldcp COMMAND --help` has examples.
    """
    if version:
        print(f"foldcp {metadata.version('foldcp')}")
        raise typer.Exit


def _settings(config: Path | None, overrides: list[str], compat: str) -> RunConfig:
    """The settings of a command; `--compat` goes last."""
    return load(config, [*overrides, f"compat={compat}"] if compat else overrides)


@app.command()
@with_input_options
def plan(
    options: InputOptions,
    input: Input,
    hardware: HardwareFile = "h200",
    gpus: Gpus = 0,
    limit: Limit = 0,
    config: ConfigFile = None,
    set_: Overrides = [],  # noqa: B006
    compat: CompatOption = "",
    json: Json = False,
) -> None:
    """Print the GPUs, memory and time that complexes need. Also prints which cannot be folded, and
    why. Folds nothing and needs no GPU.

    \b
    foldcp plan corum.tsv.gz --sequences uniprot.fasta.gz
    foldcp plan corum.tsv.gz --sequences uniprot.fasta.gz --hardware a100-40 --gpus 16 \\
        --set model.samples=5
    foldcp plan corum.tsv.gz --sequences uniprot.fasta.gz --json | jq '.too_large'
    """
    from foldcp.pipeline.inputs.tasks import make_task_list, smallest
    from foldcp.pipeline.planning.plan import (
        make_plan,
        split_into_nodes,
        to_json,
        to_text,
    )
    from foldcp.pipeline.scheduling.cost_model import CostModel
    from foldcp.pipeline.scheduling.hardware import load_hardware

    settings = _settings(config, set_, compat)
    machine = load_hardware(hardware)
    max_bytes = settings.limits.input_bytes
    spec = InputSpec(input, options, limit=limit, max_bytes=max_bytes)
    everything = make_task_list(records(spec), settings, "plan", alignments_follow=True)
    task_list = smallest(everything, limit)
    if not task_list.tasks and len(task_list.invalid) == 1 and not input.is_dir():
        raise ValueError(f"{input}: {task_list.invalid[0].reason}")
    for line in input_warnings(spec, [task.complex for task in task_list.tasks]):
        print(line, file=sys.stderr)
    nodes = split_into_nodes(gpus or machine.gpus_per_node, machine.gpus_per_node)
    found = make_plan(task_list, CostModel(machine, settings), nodes, settings.run)
    print(to_json(found) if json else to_text(found))


@app.command()
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
    from foldcp.pipeline.msa_search.stage import StoppedError

    method = MsaMethod(tuple(from_), mmseqs, environmental, jackhmmer, server, threads, gpu_server)
    try:
        summary = make_alignments(InputSpec(input, options), out, method, missing)
    except StoppedError as error:
        print("interrupted; the same command resumes from here", file=sys.stderr)
        raise typer.Exit(128 + error.number) from None
    print(f"{printable(str(out))}: {summary}")
    for failure in summary.failures[:NUM_REASONS]:
        text = failure.sequence if len(failure.sequence) <= 30 else f"{failure.sequence[:30]}.."
        line = f"  failed: {text} ({len(failure.sequence)} residues): {failure.reason}"
        print(printable(line), file=sys.stderr)
    if num_more := max(0, len(summary.failures) - NUM_REASONS):
        print(f"  .. and {num_more:,} more", file=sys.stderr)
    raise typer.Exit(1 if summary.failures else 0)


@app.command()
@with_input_options
def score(
    options: InputOptions,
    input: Input,
    out: Annotated[
        Path,
        typer.Option(metavar="RUN", help="Folder of the run; resumes an existing run."),
    ],
    checkpoint: Checkpoint = "",
    limit: Limit = 0,
    config: ConfigFile = None,
    set_: Overrides = [],  # noqa: B006
    compat: CompatOption = "",
    hardware: HardwareFile = "",
    gpus: Gpus = 0,
    address: Annotated[
        str,
        typer.Option(metavar="HOST", help="A running Ray cluster, or `auto` to find it."),
    ] = "",
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="Print the output of the workers, and tracebacks."),
    ] = False,
) -> None:
    """Fold every complex; store structures and interface scores. The same command resumes an
    interrupted run.

    Exit code 0 when every valid complex has a result, 1 when some failed (the table `attempts` says
    why), 2 for a mistake in the command or its files, 3 when the run had to stop (a full disk, no
    node left), 128 + signal when a signal stopped it; after 3 and a signal the same command
    resumes.

    \b
    foldcp score datasets/demo/complexes.tsv --sequences datasets/demo/sequences.fasta \\
        --checkpoint untrained:tiny --out demo-run --set msa.missing=single-sequence
    foldcp score corum.tsv.gz --sequences uniprot.fasta.gz --organism Human --msas msas/ \\
        --checkpoint boltz2_conf.ckpt --out corum-run --set model.samples=5 --set write=boltz
    foldcp score pairs.fasta --checkpoint boltz2_conf.ckpt --out run --limit 10
    """
    from foldcp.pipeline.execution.run import RunOptions
    from foldcp.pipeline.score_database import score_input

    settings = _settings(config, set_, compat)
    max_bytes = settings.limits.input_bytes
    spec = InputSpec(input, options, checkpoint, limit, max_bytes)
    summary = score_input(spec, settings, out, RunOptions(address, gpus, hardware, verbose))
    if summary.ray_lost and not summary.signal:
        _start_again(summary)
    try:
        _print_results(summary, out)
    except OSError as error:  # the results are stored, whether or not this can be read
        print(f"foldcp: the summary cannot be printed: {error.strerror}", file=sys.stderr)
    if not summary.is_complete:
        close_stdout()
        end_process(summary.exit_code)
    raise typer.Exit(summary.exit_code)


def _start_again(summary: Summary) -> None:
    """Replace this process by a new one with the same command.

    Nothing else ends a dead Ray, which would end the process a minute later. Returns when that has
    not helped several times in a row.
    """
    count, num_done = map(int, os.environ.get(RESTARTS, "0:0").split(":"))
    if summary.num_done > num_done:
        count = 0
    if count == MAX_RESTARTS:
        return
    print(printable(f"foldcp: {summary.stopped}; starting it again"), file=sys.stderr)
    os.environ[RESTARTS] = f"{count + 1}:{summary.num_done}"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _write_page(out: Path) -> Path | None:
    """Write the report's page; None, and a line on stderr, if the disk is full or read-only."""
    from foldcp.pipeline.reporting.report import REPORT, write_report

    try:
        return write_report(out)
    except OSError as error:
        line = f"{out / REPORT}: cannot be written: {error.strerror}"
        print("foldcp: " + printable(line), file=sys.stderr)
        return None


def _print_results(summary: Summary, out: Path) -> None:
    """The best interfaces, the paths of the results, and how the run ended."""
    from foldcp.pipeline.reporting.best_interfaces import format_best

    print(format_best(out))
    page = _write_page(out) or "not written"
    folder = printable(str(out))
    print(f"\ntables      {folder}/tables\nstructures  {folder}/structures")
    print(f"report      {printable(str(page))}\n")
    counts = [
        f"{summary.num_done} done",
        f"{len(summary.failed)} failed",
        f"{len(summary.invalid)} invalid",
    ]
    print(", ".join(counts))
    _print_reasons("invalid", [(r.name, r.reason) for r in summary.invalid], out)
    _print_reasons("failed", [(f.task.name, f.reason) for f in summary.failed], out)
    if summary.stopped:
        print(printable(f"foldcp: stopped: {summary.stopped}"), file=sys.stderr)
    if not summary.is_complete:
        print("interrupted; the same command resumes from here", file=sys.stderr)


def _print_reasons(outcome: str, reasons: Sequence[tuple[str, str]], out: Path) -> None:
    """A line for each (name, reason), up to a number of them, on stderr."""
    for name, reason in reasons[:NUM_REASONS]:
        print(printable(f"  {outcome}: {name}: {reason}"), file=sys.stderr)
    num_more = len(reasons) - NUM_REASONS
    if num_more > 0:
        print(f"  .. and {num_more} more in {out}/tables/complexes", file=sys.stderr)


@app.command()
@with_input_options
def fold(
    options: InputOptions,
    input: Input,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder for the files, in Boltz's layout."),
    ],
    checkpoint: Checkpoint = "",
    config: ConfigFile = None,
    set_: Overrides = [],  # noqa: B006
    compat: CompatOption = "",
) -> None:
    """Fold one complex, without Ray. Writes its structures and scores in Boltz's layout. On several
    GPUs: torchrun --nproc_per_node 4 -m foldcp fold, with the same arguments.

    \b
    foldcp fold complex.yaml --checkpoint boltz2_conf.ckpt --out folded
    foldcp fold dimer.fasta --checkpoint untrained:tiny --out folded \\
        --set msa.missing=single-sequence --set model.samples=5 --set model.seed=1
    """
    from foldcp.pipeline.fold_one import fold_one

    settings = _settings(config, set_, compat)
    spec = InputSpec(input, options, checkpoint, max_bytes=settings.limits.input_bytes)
    if summary := fold_one(spec, settings, out):
        print(summary)


@app.command()
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
    from foldcp.pipeline.template_search.mmseqs import Limits
    from foldcp.pipeline.template_search.search_templates import search_templates

    def warn(line: str) -> None:
        print("foldcp: " + printable(line), file=sys.stderr)

    limits = Limits(max_templates, max_evalue, min_coverage, max_identity, max_date)
    counts = search_templates(records(InputSpec(input, options)), structures, out, limits, warn)
    print(
        f"{counts.searched} sequences searched, {counts.stored} were there; "
        f"{counts.with_templates} have templates\n{printable(str(out))}"
    )


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or not.")],
    other: Annotated[
        Path | None,
        typer.Argument(metavar="RUN2", help="A second run, which is compared with the first."),
    ] = None,
) -> None:
    """Write the report of a run, a page that opens in a browser without a network, and print its
    best interfaces; of two runs, write their comparison, pair of chains by pair, into the second.

    \b
    foldcp report demo-run
    foldcp report demo-run second-run
    """
    from foldcp.pipeline.reporting.best_interfaces import format_best
    from foldcp.pipeline.reporting.comparison import COMPARISON, write_comparison

    if other is not None:
        try:
            path = write_comparison(run, other)
        except OSError as error:
            line = f"{other / COMPARISON}: cannot be written: {error.strerror}"
            print("foldcp: " + printable(line), file=sys.stderr)
            raise typer.Exit(1) from None
        print(f"comparison  {printable(str(path))}")
        return
    print(format_best(run))
    page = _write_page(run)
    if page is None:
        raise typer.Exit(1)
    print(f"\nreport  {printable(str(page))}")


@app.command()
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help=(
                "Weights: boltz2 (2.3 GB). Databases: corum, corum-human, complexportal, "
                "uniprot-human (sequences)."
            ),
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the file; by default $FOLDCP_CACHE, or ~/.foldcp.",
        ),
    ] = None,
) -> None:
    """Download released weights, whose SHA-256 is checked, or the current release of a database,
    with a record of where it came from. The same command resumes an interrupted download of
    weights, and checks a file that is already there.

    \b
    foldcp fetch boltz2
    foldcp fetch boltz2 --to /data/weights
    foldcp fetch corum --to /data
    """
    from foldcp.pipeline.fetch import WEIGHTS, cache_folder
    from foldcp.pipeline.fetch import fetch as download
    from foldcp.pipeline.fetch_data import DATABASES, fetch_database

    folder = to or cache_folder()
    if name in DATABASES:
        path, source = fetch_database(name, folder)
        print(f"{path}: {source.size:,} bytes, downloaded {source.date} from {source.url}")
        print(f"licence: {DATABASES[name].licence}")
        print(DATABASES[name].command.format(path=path))
    elif name in WEIGHTS:
        path = download(name, folder)
        print(f"{path}: SHA-256 is right\nlicence: Boltz-2: MIT")
        print(f"foldcp score INPUT --checkpoint {path} --out RUN")
    else:
        raise ValueError(f"{name}: not known; known: {', '.join((*WEIGHTS, *DATABASES))}")


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="IN", help="A Boltz-2 .ckpt file, or the name of fetched weights."),
    ],
    target: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="The new file; its name must end in .safetensors."),
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
) -> None:
    """Convert a checkpoint to safetensors, which cannot hold code. Predictions stay the same to the
    last bit; the new file has another SHA-256, so a run resumes only with the file that it began
    with.

    \b
    foldcp convert boltz2_conf.ckpt boltz2_conf.safetensors
    foldcp convert boltz2 /data/weights/boltz2.safetensors --overwrite
    """
    from foldcp.pipeline.convert import convert as write

    print(write(source, target, overwrite))


@app.command()
@with_input_options
def export(
    options: InputOptions,
    input: Input,
    to: Annotated[
        Literal["boltz", "alphafold3"],
        typer.Option(help="The format: Boltz's YAML or AlphaFold 3's JSON."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the files.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    config: ConfigFile = None,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Write every complex as an input of another tool, a file each. What the format cannot say is
    told on stderr. Exit code 1 when some complexes were not written.

    \b
    foldcp export corum.tsv.gz --sequences uniprot.fasta.gz --to boltz --out yamls
    foldcp export job.json --to boltz --out yamls --overwrite
    """
    from foldcp.pipeline.export import export as write

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


@app.command()
def bench(
    sizes: Annotated[
        str,
        typer.Option(metavar="N,N", help="Numbers of tokens; by default what suits the device."),
    ] = "",
    folds: Annotated[
        str,
        typer.Option(
            metavar="N,N",
            help="Numbers of tokens of whole predictions; by default the sizes; 0: none.",
        ),
    ] = "",
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            help="Precisions to run, comma-separated (fp32, mixed, bf16).",
        ),
    ] = "",
    ranks: Annotated[
        str,
        typer.Option(metavar="P,P", help="Numbers of GPUs; by default 1, then all."),
    ] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, few repetitions.")] = False,
    write: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The hardware file; by default <gpu>.yaml in this folder.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing hardware file.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure this machine's GPUs, or its CPU. Prints how near predictions come to the hardware's
    limit, and writes a hardware file, which `plan` and `score` take with --hardware. Also runs
    under torchrun: torchrun --nproc_per_node 4 -m foldcp bench.

    \b
    foldcp bench --quick
    foldcp bench --sizes 512,1024,2048 --precision mixed,bf16 --write our-node.yaml
    foldcp bench --sizes 4096,8192 --folds 4096 --ranks 1,2,4 --json > bench.json
    """
    from foldcp.pipeline.bench.run import BenchOptions, print_bench

    options = BenchOptions(sizes, folds, precision, ranks, quick, write, overwrite)
    print_bench(options, json)
