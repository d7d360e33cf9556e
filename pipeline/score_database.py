"""Scoring every complex of a database into a run's folder, as `foldcp score` does."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from foldcp.checkpoint.identity import weights_warning
from foldcp.pipeline.config import RunConfig, load
from foldcp.pipeline.execution.monitoring.run_status import read_status
from foldcp.pipeline.execution.ray_cluster import RayConnection, check_address
from foldcp.pipeline.execution.run import RunOptions, Summary, score
from foldcp.pipeline.inputs.input_options import InputOptions
from foldcp.pipeline.inputs.input_spec import InputSpec
from foldcp.pipeline.inputs.input_warnings import input_warnings
from foldcp.pipeline.inputs.shard import parse_shard
from foldcp.pipeline.planning.detect_hardware import cpu_ranks
from foldcp.pipeline.planning.run_plan import prepare
from foldcp.pipeline.scheduling.hardware import load_hardware


def score_database(
    input: str | Path,
    out: str | Path,
    *,
    checkpoint: str | Path,
    sequences: str | Path | Sequence[str | Path] = (),
    msas: str | Path | Sequence[str | Path] = (),
    organism: str = "",
    options: InputOptions | None = None,
    limit: int = 0,
    shard: str = "",
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    hardware: str = "",
    gpus: int = 0,
    address: str = "",
) -> Summary:
    """Fold every complex of an input and store its structures and scores; the same call resumes.

    It starts a Ray of its own, and afterwards ends every process that this one has started, unless
    `address` names a cluster. SIGINT and SIGTERM stop the run within seconds.

    Args:
        input: CORUM, Complex Portal or hu.MAP table, table of pairs, FASTA, ColabFold CSV, Boltz
            YAML, or a folder.
        out: folder of the run, new, empty or of an earlier run with the same weights.
        checkpoint: as for `load_model`.
        sequences: FASTA files with the sequences of an input that lists accessions.
        msas: folders of alignments. A protein without one is an error of its complex, unless
            `settings` have {"msa.missing": "single-sequence"}.
        organism: only complexes whose organism begins so, such as "Human".
        options: further options of `foldcp score`, as `InputOptions`.
        limit: only so many of the smallest complexes; 0 for all.
        shard: I/N for part I of N of the complexes, from 1, of about equal predicted work; "" for
            all.
        config: YAML file with settings that differ from the defaults.
        settings: settings by dotted key, such as {"model.samples": 5, "write": ["boltz"]}.
        hardware: one of configs/hardware, or a file; "" looks at this machine.
        gpus: GPUs (or CPU ranks) to use; 0 for all.
        address: of a running Ray cluster, or "auto" to find it; "" starts one here.

    Returns:
        How many complexes have a result, and which failed or are invalid and why. The results are
        in the tables of `out`; see `read_run`.

    Raises:
        ValueError: for anything that cannot be used, naming the file and the value, before anything
            is written.

    >>> import foldcp
    >>> summary = foldcp.score_database(
    ...     "datasets/demo/complexes.tsv",
    ...     "demo-run",
    ...     sequences="datasets/demo/sequences.fasta",
    ...     checkpoint="untrained:tiny",
    ...     settings={"model.steps": 2, "msa.missing": "single-sequence"},
    ...     limit=1,
    ... )
    >>> summary.num_done, len(summary.failed)
    (1, 0)
    """
    lines = [f"{key}={json.dumps(value)}" for key, value in (settings or {}).items()]
    run_config = load(Path(config) if config else None, lines)
    source = InputSpec(
        Path(input),
        _with(options or InputOptions(), sequences, msas, organism),
        str(checkpoint),
        limit,
        run_config.limits.input_bytes,
        parse_shard(shard),
    )
    return score_input(source, run_config, Path(out), RunOptions(address, gpus, hardware))


def _with(
    options: InputOptions,
    sequences: str | Path | Sequence[str | Path],
    msas: str | Path | Sequence[str | Path],
    organism: str,
) -> InputOptions:
    return replace(
        options,
        sequences=_paths(sequences) or options.sequences,
        msas=_paths(msas) or options.msas,
        organism=organism or options.organism,
    )


def _paths(names: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    return (Path(names),) if isinstance(names, str | Path) else tuple(map(Path, names))


def score_input(source: InputSpec, config: RunConfig, out: Path, options: RunOptions) -> Summary:
    """Check everything that the user names, say on stderr what deserves attention, and run."""
    if options.hardware:
        load_hardware(options.hardware)  # an error comes before the input is read
    num_cpus = max(os.cpu_count() or 1, cpu_ranks(config))
    with RayConnection(check_address(options.address), num_cpus, options.verbose) as connection:

        def begin() -> None:
            # Ray takes as long to start as many an input to read; a finished run may need none.
            if _is_unfinished(out):
                connection.begin()

        plan = prepare(source, config, out, begin)
        for line in input_warnings(source, [task.complex for task in plan.task_list.tasks]):
            print(line, file=sys.stderr)
        if warning := weights_warning(plan.provenance.checkpoint):
            print(f"{source.checkpoint}: {warning}", file=sys.stderr)
        return score(plan, out, options, connection)


def _is_unfinished(out: Path) -> bool:
    """Whether the last run on a folder has left complexes without a result, or there was none."""
    try:
        status = read_status(out)
    except ValueError:  # damaged; the run writes it anew
        return True
    return status is None or status.num_done < status.num_complexes
