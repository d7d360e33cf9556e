"""Command line of foldcp: a function for each command, here or in `commands/`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foldcp.pipeline.commands.arguments import (
    Checkpoint,
    CompatOption,
    ConfigFile,
    Gpus,
    HardwareFile,
    Input,
    Json,
    Limit,
    Overrides,
    ShardOption,
    load_settings,
)
from foldcp.pipeline.commands.calibrate import calibrate
from foldcp.pipeline.commands.describe import describe
from foldcp.pipeline.commands.evaluate import evaluate
from foldcp.pipeline.commands.export import export
from foldcp.pipeline.commands.fetch import fetch
from foldcp.pipeline.commands.msa import msa
from foldcp.pipeline.commands.plan import plan
from foldcp.pipeline.commands.query import query
from foldcp.pipeline.commands.status import status
from foldcp.pipeline.commands.templates import templates
from foldcp.pipeline.commands.training.train import train
from foldcp.pipeline.commands.training.train_data import train_data
from foldcp.pipeline.execution.signals import end_process
from foldcp.pipeline.input_arguments import with_input_options
from foldcp.pipeline.inputs.input_options import InputOptions
from foldcp.pipeline.inputs.input_spec import InputSpec
from foldcp.pipeline.inputs.shard import parse_shard
from foldcp.pipeline.terminal import close_stdout, guard_streams
from foldcp.printable import printable

if TYPE_CHECKING:  # Ray and torch take seconds to import, and `plan` needs neither
    from foldcp.pipeline.execution.run import Summary

# Environment variable "COUNT:DONE": restarts in a row, and the number of complexes done then.
RESTARTS = "FOLDCP_RESTARTS"
MAX_RESTARTS = 3  # in a row, without one complex done in between
OUTCOMES = ("done", "failed", "invalid")  # of complexes
NUM_REASONS = 10  # of failed and of invalid complexes that are printed

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


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


app.command()(plan)
app.command()(msa)


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
    shard: ShardOption = "",
    config: ConfigFile = None,
    set_: Overrides = [],  # noqa: B006
    compat: CompatOption = "",
    hardware: HardwareFile = "",
    gpus: Gpus = 0,
    address: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="A running Ray cluster, or `auto` to find it."),
    ] = "",
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="Print the output of the workers, and tracebacks."),
    ] = False,
    allow_invalid: Annotated[
        bool,
        typer.Option(
            "--allow-invalid", help="Exit code 0 even if some complexes could not be built."
        ),
    ] = False,
) -> None:
    """Fold every complex; store structures and interface scores. The same command resumes an
    interrupted run.

    Exit code 0 when every complex has a result, 1 when some failed (the table `attempts` says why),
    2 for a mistake in the command or its files, 3 when all that could be built have a result but
    some could not, 75 when the run had to stop (a full disk, no node left), 128 + signal when a
    signal stopped it; after 75 and a signal the same command resumes.

    \b
    foldcp score datasets/demo/complexes.tsv --sequences datasets/demo/sequences.fasta \\
        --checkpoint untrained:tiny --out demo-run --set msa.missing=single-sequence
    foldcp score corum.tsv.gz --sequences uniprot.fasta.gz --organism Human --msas msas/ \\
        --checkpoint boltz2_conf.ckpt --out corum-run --set model.samples=5 --set write=boltz
    foldcp score pairs.fasta --checkpoint boltz2_conf.ckpt --out run --limit 10
    foldcp score pairs.fasta --checkpoint boltz2_conf.ckpt --out runs/3 --shard 3/8
    """
    from foldcp.pipeline.execution.run import RunOptions
    from foldcp.pipeline.score_database import score_input

    settings = load_settings(config, set_, compat)
    max_bytes = settings.limits.input_bytes
    part = parse_shard(shard)
    spec = InputSpec(input, options, checkpoint, limit, max_bytes, part)
    summary = score_input(spec, settings, out, RunOptions(address, gpus, hardware, verbose))
    if summary.ray_lost and not summary.signal:
        _start_again(summary)
    try:
        _print_results(summary, out)
    except OSError as error:  # the results are stored, whether or not this can be read
        print(f"foldcp: the summary cannot be printed: {error.strerror}", file=sys.stderr)
    exit_code = summary.exit_code(allow_invalid)
    if not summary.is_complete:
        close_stdout()
        end_process(exit_code)
    raise typer.Exit(exit_code)


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
    print(f"\ntables      {folder}/tables")
    if (out / "structures").is_dir():  # write.structures=none makes none
        print(f"structures  {folder}/structures")
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

    settings = load_settings(config, set_, compat)
    spec = InputSpec(input, options, checkpoint, max_bytes=settings.limits.input_bytes)
    if summary := fold_one(spec, settings, out):
        print(summary)


app.command()(templates)


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
def merge(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Folders of shards or of other runs.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the merged run, new or empty.")
    ],
    copy: Annotated[
        bool,
        typer.Option("--copy", help="Copy structures and matrices instead of linking to them."),
    ] = False,
) -> None:
    """Put the results of several runs of one database into the folder of one, on which all other
    commands work; `foldcp score` resumes it with the whole database. Structures are hard links,
    or symbolic ones to another file system, which need the RUNs to stay.

    \b
    foldcp merge runs/1 runs/2 runs/3 --out corum-run
    """
    from foldcp.pipeline.storage.merged_runs.merge_runs import merge_runs

    summary = merge_runs(runs, out, copy)
    counts = [f"{summary.outcomes.get(name, 0):,} {name}" for name in OUTCOMES]
    files = [f"{count:,} {kind}" for kind, count in summary.files.items()]
    print(f"{printable(str(out))}: {', '.join([*counts, *files])}")
    if summary.num_repeated:
        print(f"{summary.num_repeated:,} results that several runs have were taken once")
    if summary.num_lost:
        print(
            f"{summary.num_lost:,} results have lost rows or files and were left behind; `foldcp "
            f"score` on {printable(str(out))} computes them again",
            file=sys.stderr,
        )
    if summary.missing_shards:
        print(f"missing shards: {', '.join(summary.missing_shards)}", file=sys.stderr)


app.command()(status)
app.command()(query)
app.command()(calibrate)
app.command()(evaluate)
app.command()(train_data)
app.command()(describe)
app.command()(fetch)
app.command()(train)


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
    bf16: Annotated[
        bool,
        typer.Option("--bf16", help="Round the weights to bfloat16, which halves the file."),
    ] = False,
) -> None:
    """Convert a checkpoint to safetensors, which cannot hold code. Predictions stay the same to the
    last bit, without --bf16; the new file has another SHA-256, so a run resumes only with the file
    that it began with.

    \b
    foldcp convert boltz2_conf.ckpt boltz2_conf.safetensors
    foldcp convert boltz2 /data/weights/boltz2.safetensors --overwrite
    foldcp convert run/checkpoints/step-00010000.ckpt small.safetensors --bf16
    """
    from foldcp.pipeline.convert import convert as write

    print(write(source, target, overwrite, bf16))


app.command()(export)


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
    throughput: Annotated[
        str,
        typer.Option(
            metavar="N,N",
            help="Also count complexes an hour with so many tokens, folded alone and together.",
        ),
    ] = "",
    beside: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            help="Also measure these engines, where they are installed (boltz, bioir).",
        ),
    ] = "",
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            help="Precisions to run, comma-separated (fp32, mixed, bf16, bf16-int8).",
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
    foldcp bench --folds 512,1024 --throughput 150,256 --beside boltz,bioir --ranks 1
    foldcp bench --sizes 4096,8192 --folds 4096 --ranks 1,2,4 --json > bench.json
    """
    from foldcp.pipeline.bench.run import BenchOptions, print_bench

    options = BenchOptions(
        sizes, folds, throughput, beside, precision, ranks, quick, write, overwrite
    )
    print_bench(options, json)
