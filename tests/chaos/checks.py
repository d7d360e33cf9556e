"""What must hold of a run's folder after any schedule of faults.

Only what users see is read: exit codes, tables, structures, status.json and log.jsonl.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tests.chaos.injection import Hit
from tests.chaos.schedule import NODE_FAULTS, SIGNALS, Schedule

TABLES = ("complexes", "chains", "interfaces", "pairs")
SIGNAL_NUMBERS = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9}
# For each fault, outcome and reason that an attempt which it hit may have.
DIED = ("worker_died", r"(rank|group) \d+( died|: \w+Error)|node .* is gone")
BROKEN = ("error", r"rank \d+: \w*Error")  # of a rank whose partner died
FROZEN = ("timeout", r"took over \d+ s|no step for \d+ s")
CAUSES: dict[str, tuple[tuple[str, str], ...]] = {
    "kill_rank": (DIED, BROKEN),
    "kill_group": (DIED,),
    "freeze_rank": (FROZEN,),
    "freeze_group": (FROZEN,),
    "kill_raylet": (DIED,),
    "kill_gcs": (DIED,),
    "kill_node": (DIED, BROKEN),
    "remove_node": (DIED, BROKEN),
    "freeze_node": (DIED, BROKEN, FROZEN),
    "SIGTERM": (DIED,),
    "raise": (("error", r"rank \d: RuntimeError: chaos: this rank raises"),),
    "wrong_type": (("error", r"rank \d: \w+: .*"),),
    "oom": (("oom", r"rank \d: chaos: the GPU is full"),),
    "memory_error": (("oom", r"rank \d: chaos: the machine is full"),),
    "nan": (("invalid", r"coordinates are not finite"),),
    "die": (DIED, BROKEN),
    "hang": (FROZEN,),
}
LASTING = {"disk_full", "kill_gcs", "kill_raylet", *NODE_FAULTS}  # faults of more than a driver
AT_ONCE = {"nan", "oom", "memory_error"}  # without a second attempt, if no fallback is left
NODES_GONE = r"needs? .*(GPU|rank|node)"  # a complex that waited for nodes in vain


@dataclass(frozen=True, slots=True)
class InvocationEnd:
    """How an invocation ended, and what had hit it.

    `fold_hits` are kinds and complexes of faults of folds.
    """

    exit_code: int
    hits: tuple[Hit, ...]
    fold_hits: tuple[tuple[str, str], ...]

    @property
    def kinds(self) -> set[str]:
        """The kinds of all faults that hit it."""
        return {hit.kind for hit in self.hits} | {kind for kind, _ in self.fold_hits}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What happened to a run."""

    schedule: Schedule
    ends: tuple[InvocationEnd, ...]
    fold_hits: tuple[tuple[str, str], ...]

    @property
    def kinds(self) -> set[str]:
        """The kinds of all faults that hit it."""
        return set[str]().union(*(end.kinds for end in self.ends))


def end_of_second_driver(
    exit_code: int, first: InvocationEnd, fold_hits: tuple[tuple[str, str], ...]
) -> InvocationEnd | None:
    """How a second driver ended; None if it refused the folder.

    It may come when the first has just ended, and is an invocation of its own then.
    """
    if exit_code == 2:
        return None
    hits = tuple(hit for hit in first.hits if hit.kind in LASTING)
    return InvocationEnd(exit_code, hits, fold_hits)


def complaints_of_end(end: InvocationEnd) -> list[str]:
    """What is wrong with the exit code of an invocation."""
    allowed = {0, 1, 3}
    allowed |= {SIGNAL_NUMBERS[kind] for kind in end.kinds & set(SIGNALS)}
    # Ray may place no more groups while it waits for a frozen node.
    if end.kinds & {"disk_full", "kill_gcs", "kill_raylet", "freeze_node"}:
        allowed.add(75)  # try again
    if "truncate" in end.kinds:
        allowed.add(2)  # with advice, which is followed
    if end.exit_code in allowed:
        return []
    return [f"exit code {end.exit_code} after {sorted(end.kinds)}"]


def check_run(out: Path, reference: Path, evidence: Evidence) -> list[str]:
    """What is wrong with the folder of a run that is over."""
    tables = {name: read(out, name) for name in (*TABLES, "attempts", "runs")}
    return [
        *_check_outcomes(tables["complexes"], evidence),
        *check_reasons(tables["complexes"], evidence),
        *check_attempts(tables["attempts"], tables["complexes"], evidence),
        *_check_results(tables, out, reference),
        *_check_runs(tables["runs"], evidence),
        *_check_status(out, tables["complexes"], tables["runs"]),
        *_check_log(out, tables["attempts"], evidence),
    ]


def read(out: Path, table: str) -> pd.DataFrame:
    """A table of a run, without what is stale; empty if there is none."""
    folder = out / "tables" / table
    return pd.read_parquet(folder) if folder.exists() else pd.DataFrame()


def _check_outcomes(complexes: pd.DataFrame, evidence: Evidence) -> Iterator[str]:
    """Every complex once, and the exit code says how they ended."""
    expected = Counter(evidence.schedule.complexes)
    expected.update(["bad"] * evidence.schedule.has_invalid)
    found = Counter(complexes["name"])
    if found != expected:
        yield f"rows of complexes: {dict(found)} instead of {dict(expected)}"
    outcomes = set(complexes["outcome"])
    honest = 1 if "failed" in outcomes else 3 if "invalid" in outcomes else 0
    if evidence.ends[-1].exit_code != honest:
        yield f"exit code {evidence.ends[-1].exit_code} instead of {honest}"


def check_reasons(complexes: pd.DataFrame, evidence: Evidence) -> Iterator[str]:
    """A complex fails for what happened to it in the last invocation."""
    last = evidence.ends[-1]
    num_hits = sum(hit.kind in CAUSES for hit in last.hits)
    for row in complexes[complexes["outcome"] == "failed"].itertuples():
        own = [kind for kind, name in last.fold_hits if name == row.name]
        reason = str(row.reason)
        if last.kinds & set(NODE_FAULTS) and re.search(NODES_GONE, reason):
            continue
        causes = _causes(last.hits, own)
        if not any(re.search(pattern, reason) for _, pattern in causes):
            yield f"{row.name} failed, hit by {sorted(last.kinds)}: {reason!r}"
        if not AT_ONCE & set(own) and len(own) + num_hits < 2:
            yield f"{row.name} failed after a single fault, {sorted(last.kinds)}: {reason!r}"


def _causes(hits: Iterable[Hit], own: Iterable[str]) -> list[tuple[str, str]]:
    """Outcomes and reasons that faults explain: those of processes, and of a complex's own folds.

    Which complex a process was folding when it was hit is known only to a moment.
    """
    kinds = {*(hit.kind for hit in hits), *own}
    return [cause for kind in kinds for cause in CAUSES.get(kind, ())]


def check_attempts(
    attempts: pd.DataFrame, complexes: pd.DataFrame, evidence: Evidence
) -> Iterator[str]:
    """Attempts end as the faults let them, and a complex is scored once."""
    if attempts.empty:
        return
    hits = [hit for end in evidence.ends for hit in end.hits]
    for row in attempts[attempts["outcome"] != "done"].itertuples():
        # The fault of one complex of a batch ends the attempts at all.
        own = [kind for kind, name in evidence.fold_hits if row.batch > 1 or name == row.name]
        reason = str(row.reason)
        causes = _causes(hits, own)
        if not any(row.outcome == kind and re.search(text, reason) for kind, text in causes):
            yield f"attempt at {row.name}, hit by {sorted(evidence.kinds)}: {row.outcome} {reason}"
    failed = attempts[attempts["outcome"] != "done"]
    num_failed = math.ceil((1 / failed["batch"]).sum())
    num_hits = len(evidence.fold_hits) + sum(1 + (hit.kind in NODE_FAULTS) for hit in hits)
    if num_failed > num_hits:
        yield f"{num_failed} folds failed, but only {num_hits} faults hit"
    done = Counter(attempts[attempts["outcome"] == "done"]["name"])
    for row in complexes[complexes["outcome"] == "done"].itertuples():
        if done[row.name] > 1 and "truncate" not in evidence.kinds:
            yield f"{row.name} was scored {done[row.name]} times"
    last_of = attempts.sort_values(["run_id", "attempt"]).groupby("name")["batch"].last()
    for row in complexes[complexes["outcome"] == "failed"].itertuples():
        if last_of.get(row.name, 1) > 1:
            yield f"{row.name} failed, though it was last folded with others"


def _check_results(tables: dict[str, pd.DataFrame], out: Path, reference: Path) -> Iterator[str]:
    """The rows and structures of scored complexes are those of an undisturbed run.

    To the bit, where as many ranks made them, of each alone; others may differ in the last digits.
    Those made with an out-of-memory fallback are made otherwise, and are not compared.
    """
    expected = {name: read(reference, name) for name in TABLES}
    complexes = tables["complexes"]
    attempts = tables["attempts"]
    names = set(complexes[complexes["outcome"] != "failed"]["name"])
    batched: set[str] = set()
    if not attempts.empty:
        names -= set(attempts[attempts["fallbacks"].map(len) > 0]["name"])
        batched = set(attempts[(attempts["outcome"] == "done") & (attempts["batch"] > 1)]["name"])
    sizes = complexes.set_index("name")["group_size"]
    usual = expected["complexes"].set_index("name")["group_size"]
    equal = {name for name in names if pd.isna(sizes[name]) or sizes[name] == usual[name]}
    equal -= batched
    for table in TABLES:
        for chosen, is_exact in ((equal, True), (names - equal, False)):
            yield from _differences(table, tables[table], expected[table], chosen, is_exact)
    for row in complexes[complexes["outcome"] == "done"].itertuples():
        structure = out / str(row.structure)
        if not structure.exists():
            yield f"{row.structure} of {row.name} is missing"
            continue
        expected_structure = reference / str(row.structure)
        if row.name in equal and structure.read_bytes() != expected_structure.read_bytes():
            yield f"{row.structure} of {row.name} is another one"


def _differences(
    table: str, found: pd.DataFrame, expected: pd.DataFrame, names: set[str], is_exact: bool
) -> Iterator[str]:
    """Where the rows of complexes in a table are not those of another."""
    expected = _rows_of(expected, names)
    if expected.empty:
        return
    if found.empty:
        yield f"the table {table} is empty"
        return
    found = _rows_of(found, names)
    tolerance = {} if is_exact else {"rtol": 1e-3, "atol": 2e-3}
    if not is_exact:
        found = found.drop(columns="group_size", errors="ignore")
        expected = expected.drop(columns="group_size", errors="ignore")
    try:
        pd.testing.assert_frame_equal(
            found, expected, check_exact=is_exact, check_dtype=False, **tolerance
        )
    except AssertionError as error:
        yield f"{table}: {' '.join(str(error).split())[:400]}"


def _rows_of(table: pd.DataFrame, names: set[str]) -> pd.DataFrame:
    order = [name for name in ("name", "chain", "chain_a", "chain_b") if name in table]
    chosen = table[table["name"].isin(names)]
    # What was read of the input's file: its name and the position of a record differ.
    chosen = chosen.drop(columns=["source"], errors="ignore")
    invalid = chosen["name"] == "bad"
    chosen = chosen.assign(key=chosen["key"].where(~invalid, ""))
    return chosen.sort_values(order).reset_index(drop=True)


def _check_runs(runs: pd.DataFrame, evidence: Evidence) -> Iterator[str]:
    """The last invocation has finished, and those before were interrupted or finished."""
    statuses = list(runs["status"])
    if not statuses or statuses[-1] != "finished":
        yield f"runs: {statuses}"
    if not set(statuses) <= {"finished", "interrupted"}:
        yield f"runs: {statuses}"
    hits = Counter(hit.kind for end in evidence.ends for hit in end.hits)
    restarts = 3 * (hits["kill_gcs"] + hits["kill_raylet"])
    if len(statuses) > len(evidence.ends) + restarts:
        yield f"{len(statuses)} runs of {len(evidence.ends)} invocations"


def _check_status(out: Path, complexes: pd.DataFrame, runs: pd.DataFrame) -> Iterator[str]:
    """`status.json` counts what the tables have."""
    path = out / "status.json"
    if not path.exists():
        return
    status = json.loads(path.read_text())
    counts = Counter(complexes["outcome"])
    names = (("done", "num_done"), ("failed", "num_failed"), ("invalid", "num_invalid"))
    for outcome, field in names:
        if status[field] != counts[outcome]:
            yield f"status.json has {field} {status[field]}, complexes {counts[outcome]}"
    if status["num_complexes"] != counts["done"] + counts["failed"]:
        yield f"status.json has {status['num_complexes']} complexes"
    if status["run_id"] not in set(runs["run_id"]):
        yield f"status.json is of {status['run_id']}, which is not in runs"


def _check_log(out: Path, attempts: pd.DataFrame, evidence: Evidence) -> Iterator[str]:
    """`log.jsonl` is whole, and has every attempt of the tables with its outcome."""
    path = out / "log.jsonl"
    if not path.exists():
        if not attempts.empty:
            yield "there is no log.jsonl"
        return
    logged: Counter[Sequence[object]] = Counter()
    for line in path.read_text().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            if "disk_full" not in evidence.kinds:
                yield f"log.jsonl: {line!r}"
            continue
        if event["event"] == "attempt_ended":
            fields = ("run_id", "complex", "attempt", "outcome")
            logged[tuple(event[field] for field in fields)] += 1
    if attempts.empty:
        return
    stored = Counter(
        zip(
            attempts["run_id"],
            attempts["name"],
            attempts["attempt"],
            attempts["outcome"],
            strict=True,
        )
    )
    last = attempts["run_id"].max()
    for attempt in stored - logged:
        if attempt[0] == last:  # others may have been stopped before they could tell
            yield f"log.jsonl lacks {attempt}"
    for attempt in logged - stored:
        if attempt[0] == last:
            yield f"attempts lacks {attempt}, which log.jsonl has"
