"""The batch scripts of configs/cluster on a real Slurm, of one node on this machine."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foldcp.pipeline.storage.tables import read_table
from tests.launching.slurm import Slurm, why_not
from tests.support.runs import sequence

SCRIPTS = Path(__file__).parents[2] / "configs" / "cluster"
SETTINGS = (
    "msa.missing=single-sequence",
    "model.recycling=0",
    "run.cpu_ranks=1",
    "run.deadline_floor=300",
    "run.start_deadline=300",
)
SECONDS = 400.0  # for a job, on a machine that others use as well

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    # Not pytest's folder, whose path is too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="foldcp-slurm-"))
    slurm = Slurm(folder)
    yield slurm
    slurm.close()
    shutil.rmtree(folder)


def write_fasta(path: Path, number: int) -> Path:
    lines = [f">c{i}\n{sequence(20 + i, i)}:{sequence(14, 50 + i)}\n" for i in range(number)]
    path.write_text("".join(lines))
    return path


def options(steps: int) -> list[str]:
    words = ["--checkpoint", "untrained:tiny", "--set", f"model.steps={steps}"]
    return words + [word for setting in SETTINGS for word in ("--set", setting)]


def wait_for(condition: Callable[[], object], slurm: Slurm) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            logs = [path.read_text()[-1500:] for path in slurm.folder.glob("*-*.*")]
            pytest.fail("\n".join(["timeout", slurm.command("squeue"), *logs]))
        time.sleep(0.5)


def num_done(out: Path) -> int:
    if not (out / "run.json").exists():
        return 0
    return read_table(out, "complexes")["outcome"].to_pylist().count("done")


def test_run_is_stopped_before_the_wall_time_and_queued_again_until_it_is_done(
    slurm: Slurm, tmp_path: Path
) -> None:
    source = write_fasta(tmp_path / "in.fasta", 4)
    out = tmp_path / "run"
    words = [str(source), "--out", str(out), "--hardware", "cpu", *options(steps=60)]
    script = str(SCRIPTS / "slurm.sbatch")
    job = slurm.command("sbatch", "--parsable", "--nodes", "1", script, *words)
    assert job
    wait_for(lambda: num_done(out) >= 1, slurm)
    slurm.send_warning(job)
    wait_for(lambda: slurm.field(job, "Restarts") == "1", slurm)
    assert 1 <= num_done(out) < 4
    assert read_table(out, "runs")["status"].to_pylist() == ["interrupted"]
    wait_for(lambda: slurm.field(job, "JobState") == "COMPLETED", slurm)
    assert slurm.field(job, "ExitCode") == "0:0"
    assert num_done(out) == 4
    runs = read_table(out, "runs")
    assert runs["status"].to_pylist() == ["interrupted", "finished"]
    assert all("--address" in command for command in runs["command"].to_pylist())
    log = (slurm.folder / f"slurm-{job}.out").read_text()
    assert "stopped with exit code 143; queued again" in log
    token = slurm.folder / ".ray/auth_token"
    assert token.stat().st_mode & 0o077 == 0


def test_shards_of_an_array_are_merged_by_the_job_after_it(slurm: Slurm, tmp_path: Path) -> None:
    source = write_fasta(tmp_path / "in.fasta", 4)
    shards = tmp_path / "shards"
    merged = tmp_path / "run"
    array = slurm.command(
        "sbatch",
        "--parsable",
        "--array",
        "1-2",
        str(SCRIPTS / "slurm-array.sbatch"),
        str(shards),
        str(source),
        *options(steps=150),
    )
    assert array
    merge = f"foldcp merge {shards}/* --out {merged}"
    last = slurm.command(
        "sbatch", "--parsable", "--dependency", f"afterany:{array}", "--wrap", merge
    )
    wait_for(lambda: num_done(shards / "1") >= 1, slurm)
    first = f"{array}_1"
    slurm.send_warning(first)
    wait_for(lambda: slurm.field(first, "Restarts") == "1", slurm)
    assert not merged.exists()  # the merge waits for what was queued again
    wait_for(lambda: slurm.field(last, "JobState") in ("COMPLETED", "FAILED"), slurm)
    assert slurm.field(last, "ExitCode") == "0:0"
    assert num_done(merged) == 4
    runs = read_table(merged, "runs").to_pylist()
    assert {row["shard"] for row in runs} == {"1/2", "2/2", None}
    statuses = [row["status"] for row in runs if row["shard"] == "1/2"]
    assert statuses[-1] == "finished" and set(statuses[:-1]) <= {"interrupted"}
