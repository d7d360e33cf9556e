"""A schedule of faults on real runs of `foldcp score`, and what they must leave behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import yaml

from foldcp.pipeline.scheduling.hardware import PRESETS
from tests.chaos.checks import (
    Evidence,
    InvocationEnd,
    check_run,
    complaints_of_end,
    end_of_second_driver,
    read,
)
from tests.chaos.cluster import ChaosCluster, kill, marked, slowness, title, with_descendants
from tests.chaos.injection import Hit, Injector
from tests.chaos.launcher import Launcher
from tests.chaos.schedule import (
    NUM_NAMES,
    TWO_RANKS,
    FoldFault,
    Invocation,
    Schedule,
    draw_schedule,
)
from tests.support.runs import sequence

PATH = Path(__file__).parent / "path"
MARK = "FOLDCP_CHAOS"  # the folder of a lane, in the environment of all its processes
LENGTHS = {f"c{index}": (6 + index, 5) for index in range(NUM_NAMES)} | {TWO_RANKS: (20, 12)}
HARDWARE = {"pair_bytes_fp32": 1.2e7, "memory_gb": 8.0, "start_seconds": 0.5}
DISK_BYTES = 40_000_000
# On a quiet machine:
FOLD_SECONDS = 8.0  # that a fold may take; most take a tenth of a second
START_SECONDS = 8.0  # that the start of a group may take
INVOCATION_SECONDS = 120.0  # after which one hangs
END_SECONDS = 10.0  # in which the processes of a driver's own Ray end after it
# Where the driver was killed, and the control service with it, Ray's agents still ask that one, as
# do its workers that have just begun and run no code of ours yet.
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
AGENT_SECONDS = 75.0
MAX_INVOCATIONS = 5
MAX_STARTS = 4  # of a cluster
SETTINGS = (
    "msa.missing=single-sequence",
    "model.steps=10",
    "model.recycling=0",
    "run.cpu_ranks=1",
    "run.efficiency=1",  # no group is larger than its complex needs, so that numbers are equal
    "run.node_wait=6",
)


@dataclass(frozen=True, slots=True)
class Report:
    """What a schedule did, and what was wrong."""

    schedule: Schedule
    seconds: float
    hits: tuple[str, ...]
    exit_codes: tuple[int, ...]
    complaints: tuple[str, ...]
    folder: Path


def failed_report(seed: int, error: BaseException) -> Report:
    """The report of a schedule whose checks could not be made."""
    lines = traceback.format_exception(error)
    return Report(draw_schedule(seed), 0.0, (), (), tuple(lines), Path())


class Lane:
    """Runs schedules, one after the other, on a cluster that it keeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        os.environ[MARK] = str(folder)
        os.environ["RAY_TMPDIR"] = str(folder)
        os.environ["PYTHONPATH"] = str(PATH)  # of Ray's processes
        # Otherwise 15, with which whatever else the machine does delays them beyond any deadline.
        os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  Ray's spelling
        self.launcher = Launcher(folder)
        self.cluster: ChaosCluster | None = None
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.has_disk = _mount(self.disk)
        (folder / "small.yaml").write_text(
            yaml.safe_dump(yaml.safe_load((PRESETS / "cpu.yaml").read_text()) | HARDWARE)
        )
        self.set_fold_faults(())

    def joined_cluster(self) -> ChaosCluster:
        """The cluster, started if there is none."""
        if self.cluster is None:
            self.cluster = self._start_cluster()
        return self.cluster

    def _start_cluster(self) -> ChaosCluster:
        """A new cluster; again, where Ray gives up a start after its 30 s on a busy machine."""
        for _ in range(MAX_STARTS):
            try:
                return ChaosCluster(self.launcher)
            except Exception as error:  # Ray raises no class of its own
                if "timed out" not in str(error):
                    raise
            kept = {os.getpid(), *(process.pid for process in self._launched())}
            found = with_descendants([psutil.Process()])
            kill(process for process in found if process.pid not in kept)
        raise TimeoutError(f"Ray did not start {MAX_STARTS} times")

    def _launched(self) -> list[psutil.Process]:
        return with_descendants([psutil.Process(self.launcher.pid)])

    def reference(self) -> Path:
        """The folder of an undisturbed run of all complexes."""
        folder = self.folder / "undisturbed"
        schedule = Schedule(0, True, 2, tuple(LENGTHS), True, (), (Invocation(),))
        execution = Execution(self, schedule, folder)
        execution.begin()
        end = execution.invoke(Invocation())
        assert end.exit_code == 3, execution.log.read_text()
        return folder / "run"

    def execute(self, schedule: Schedule, reference: Path) -> Report:
        """Let a schedule happen, and check what it leaves."""
        try:
            return Execution(self, schedule, self.disk / f"seed{schedule.seed}").report(reference)
        except Exception:  # the next schedule has a cluster of its own
            self.close_cluster()
            raise

    def close_cluster(self) -> None:
        """Kill the cluster."""
        if self.cluster:
            self.cluster.close()
            self.cluster = None

    def close(self) -> None:
        """End all processes of the lane, and remove its folder."""
        self.close_cluster()
        self.launcher.close()
        kill(marked(MARK, str(self.folder)))
        if self.has_disk:
            subprocess.run(["umount", "--lazy", str(self.disk)], check=False)

    def set_fold_faults(self, faults: Sequence[FoldFault]) -> None:
        """Let ranks misbehave from now on."""
        for hit in self.folder.glob("hit-*"):
            hit.unlink()
        content = [asdict(fault) for fault in faults]
        (self.folder / "fold_faults.json").write_text(json.dumps(content))


def _mount(folder: Path) -> bool:
    """Give a folder a small disk of its own, which can be filled; whether this user may."""
    options = ["-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    result = subprocess.run(["mount", "-t", "tmpfs", *options], capture_output=True)
    return result.returncode == 0


class Execution:
    """One schedule on a lane."""

    def __init__(self, lane: Lane, schedule: Schedule, folder: Path) -> None:
        self.lane = lane
        self.schedule = schedule
        self.folder = folder
        self.out = folder / "run"
        self.log = folder / "log"
        self.ballast = lane.disk / "ballast"
        self.second_drivers: list[tuple[int, Path]] = []  # with their logs
        self.ends: list[InvocationEnd] = []
        self.complaints: list[str] = []

    def begin(self) -> None:
        """Write the input, and make the cluster what the schedule asks for."""
        self.folder.mkdir(parents=True)
        records = [
            f">{name}\n{sequence(LENGTHS[name][0], index)}:{sequence(LENGTHS[name][1], 50)}\n"
            for index, name in enumerate(LENGTHS)
            if name in self.schedule.complexes
        ]
        if self.schedule.has_invalid:
            records.append(">bad\nMK1\n")
        (self.folder / "in.fasta").write_text("".join(records))
        self.lane.set_fold_faults(self.schedule.fold_faults)
        if self.schedule.is_joined:
            self.lane.joined_cluster().set_nodes(self.schedule.num_nodes)

    def report(self, reference: Path) -> Report:
        """Run the schedule to its end, and look at what is left."""
        started = time.monotonic()
        self.begin()
        waiting = list(self.schedule.invocations)
        while len(self.ends) < MAX_INVOCATIONS:
            invocation = waiting.pop(0) if waiting else Invocation()
            self.invoke(invocation)
            if self.ends[-1].exit_code in (0, 1, 3) or self.complaints:
                break
        evidence = Evidence(self.schedule, tuple(self.ends), self._fold_hits())
        if not self.complaints:
            self.complaints += check_run(self.out, reference, evidence)
        if self.complaints:
            kept = self.lane.folder.parent / f"failed-seed{self.schedule.seed}"
            shutil.copytree(self.folder, kept, dirs_exist_ok=True)
        shutil.rmtree(self.folder)
        hits = [hit.kind for end in self.ends for hit in end.hits]
        return Report(
            self.schedule,
            time.monotonic() - started,
            (*hits, *(kind for kind, _ in self._fold_hits())),
            tuple(end.exit_code for end in self.ends),
            tuple(self.complaints),
            self.lane.folder.parent / f"failed-seed{self.schedule.seed}",
        )

    def invoke(self, invocation: Invocation) -> InvocationEnd:
        """Run the command once, and let its faults happen."""
        truncated = [self._truncate(number) for number in invocation.truncations]
        with self.log.open("a") as log:
            log.write(f"---- {invocation} {truncated}\n")
        num_fold_hits = len(self._fold_hits())
        pid = self.lane.launcher.start(self._arguments(), self.log, self._environment())
        injector = Injector(
            invocation,
            pid,
            self.out / "log.jsonl",
            self.lane.cluster if self.schedule.is_joined else None,
            self.lane.launcher,
            {"disk_full": self._fill_disk, "second_driver": self._start_second_driver},
        )
        allowed = INVOCATION_SECONDS * slowness()
        deadline = time.monotonic() + allowed
        while (code := self.lane.launcher.exit_code(pid)) is None:
            if time.monotonic() > deadline:
                self.complaints.append(f"an invocation took over {allowed:.0f} s")
                psutil.Process(pid).send_signal(signal.SIGUSR1)  # its stacks go to the log
                time.sleep(1.0)
                psutil.Process(pid).kill()
                deadline += allowed
            injector.step()
            time.sleep(0.05)
        self.ballast.unlink(missing_ok=True)
        hits = [*injector.hits, *(Hit("truncate", ()) for _ in truncated)]
        fold_hits = self._fold_hits()[num_fold_hits:]
        if code == 2:
            self._delete_damaged(truncated)
        end = InvocationEnd(code, tuple(hits), fold_hits)
        self.ends.append(end)
        self.complaints += complaints_of_end(end)
        for pid, log in self.second_drivers:
            self._check_second_driver(pid, log, end)
        self.second_drivers.clear()
        self._check_leftovers(end)
        return end

    def _arguments(self) -> list[str]:
        drawn = (
            f"run.deadline_floor={FOLD_SECONDS * slowness():.0f}",
            f"run.start_deadline={START_SECONDS * slowness():.0f}",
            f"run.batch={self.schedule.batch}",
        )
        settings = [part for setting in (*SETTINGS, *drawn) for part in ("--set", setting)]
        joined = ["--address", self.lane.cluster.address] if self.lane.cluster else []
        return [
            "score",
            str(self.folder / "in.fasta"),
            "--out",
            str(self.out),
            "--checkpoint",
            "untrained:tiny",
            "--hardware",
            str(self.lane.folder / "small.yaml"),
            "--gpus",
            str(self.schedule.num_nodes),
            *(joined if self.schedule.is_joined else []),
            *settings,
        ]

    def _environment(self) -> dict[str, str]:
        return {"FOLDCP_CHAOS_OUT": str(self.out)}

    def _fold_hits(self, since: float = 0.0) -> tuple[tuple[str, str], ...]:
        """Kind and complex of the faults that have hit folds since a time, in their order."""
        times = {path: path.stat().st_mtime for path in self.lane.folder.glob("hit-*")}
        found = sorted((path for path in times if times[path] >= since), key=times.__getitem__)
        faults = [self.schedule.fold_faults[int(path.name.split("-")[1])] for path in found]
        return tuple((fault.kind, fault.complex) for fault in faults)

    def _last_start(self) -> float:
        """When the last run on the folder began, as a POSIX time."""
        runs = read(self.out, "runs")
        return 0.0 if runs.empty else runs["started"].max().timestamp()

    def _truncate(self, number: int) -> str:
        """Cut a file of the results in half; its name, or nothing if there is none."""
        found = sorted(
            path
            for folder in ("parts", "commits", "structures")
            for path in (self.out / folder).rglob("*")
            if path.is_file()
        )
        if not found:
            return ""
        path = found[number % len(found)]
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        return str(path.relative_to(self.out))

    def _delete_damaged(self, truncated: Sequence[str]) -> None:
        """Delete the files that the command refused and advised to delete."""
        advice = [line for line in self.log.read_text().splitlines() if "delete it to" in line]
        for name in truncated:
            if name and any(name in line for line in advice[-1:]):
                (self.out / name).unlink()
                return
        self.complaints.append("the command was refused, and does not say what to delete")

    def _fill_disk(self) -> None:
        """Fill the disk of the run until the invocation has ended."""
        if not self.lane.has_disk:
            return
        with self.ballast.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def _start_second_driver(self) -> None:
        # Not on the disk that may be full.
        log = self.lane.folder / f"second{len(self.second_drivers)}.log"
        log.unlink(missing_ok=True)
        pid = self.lane.launcher.start(self._arguments(), log, self._environment())
        self.second_drivers.append((pid, log))

    def _check_second_driver(self, pid: int, log: Path, first: InvocationEnd) -> None:
        """A second driver must refuse the folder in one line, unless the first has ended; or say
        that the disk is full.
        """
        deadline = time.monotonic() + INVOCATION_SECONDS * slowness()
        while (code := self.lane.launcher.exit_code(pid)) is None:
            if time.monotonic() > deadline:
                psutil.Process(pid).kill()
            time.sleep(0.05)
        # It may have begun to fold before the first, whose run was over, had exited.
        end = end_of_second_driver(code, first, self._fold_hits(self._last_start()))
        if end is not None:
            self.ends.append(end)
            self.complaints += [f"second driver: {each}" for each in complaints_of_end(end)]
            return
        text = log.read_text()
        reasons = ["being written", "another"]
        if "disk_full" in first.kinds:
            reasons.append("No space left")
        if not any(reason in text for reason in reasons):
            self.complaints.append(f"the second driver says {text[-200:]!r}")

    def _check_leftovers(self, end: InvocationEnd) -> None:
        """No process, placement group or resource is left."""
        kinds = {hit.kind for hit in end.hits}
        if self.schedule.is_joined and kinds & {"kill_gcs", "kill_raylet"}:
            self.lane.close_cluster()
            self.lane.joined_cluster().set_nodes(self.schedule.num_nodes)
            return
        if self.schedule.is_joined:
            left = self.lane.joined_cluster().wait_until_clean()
        else:
            left = self._private_leftovers()
        self.complaints += [f"left behind: {each}" for each in left]

    def _private_leftovers(self) -> list[str]:
        """Processes of a Ray of its own that outlive the driver."""
        started = time.monotonic()
        while found := marked("FOLDCP_CHAOS_OUT", str(self.out)):
            seconds = time.monotonic() - started
            others = [process for process in found if not is_of_ray(process)]
            if seconds > slowness() * (END_SECONDS if others else AGENT_SECONDS):
                break
            time.sleep(0.5)
        names = [f"process {each.pid} {title(each)}" for each in found]
        kill(found)
        return names


def is_of_ray(process: psutil.Process) -> bool:
    """Whether a process is one of Ray's agents, or a script of Ray without a name yet."""
    try:
        name, *arguments = process.cmdline() or [""]
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return True
    return name in AGENTS or any("/site-packages/ray/" in text for text in arguments)
