"""What Ray calls the groups of a run and their folds, as its dashboard and its commands show it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psutil

from foldcp.complex import Chain, Complex
from foldcp.pipeline.execution.monitoring.progress_actor import group_name
from foldcp.pipeline.execution.worker_group import MAX_NAME, task_name
from foldcp.pipeline.storage.tables import read_table
from tests.support.runs import command, sequence, wait_for, write_patch

# In every process of a run: the driver writes down, when a result is stored, which actors have a
# name.
LISTING = """
def patch(module):
    take = module.Driver._store_results
    def list_names(self, results):
        if results:
            with open(os.environ["NAMES"], "w") as file:
                print(*module.ray.util.list_named_actors(all_namespaces=False), file=file)
        return take(self, results)
    module.Driver._store_results = list_names
"""


def titles(driver: subprocess.Popen[bytes]) -> set[str]:
    """Titles of the processes of a run that are Ray's workers."""
    found = set()
    for child in psutil.Process(driver.pid).children(recursive=True):
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if line.startswith("ray::"):
            found.add(line.strip())
    return found


def test_folds_are_called_by_complex_and_groups_by_number(tmp_path: Path) -> None:
    source = tmp_path / "in.fasta"
    source.write_text(f">P53/MDM2\n{sequence(30, 1)}:{sequence(20, 2)}\n")
    write_patch(tmp_path, "foldcp.pipeline.execution.driver", LISTING)
    settings = ("msa.missing=single-sequence", "model.steps=40", "run.deadline_floor=200")
    out = tmp_path / "run"
    line = command(source, out, "cpu", 1, settings)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "NAMES": str(tmp_path / "names")}
    with subprocess.Popen(line, env=environment) as driver:
        wait_for(lambda: any("WorkerActor.fold P53_MDM2" in t for t in titles(driver)), driver)
        assert any("WorkerGroupActor.fold P53_MDM2" in title for title in titles(driver))
        assert driver.wait(240) == 0
    names = (tmp_path / "names").read_text().split()
    (run_id,) = read_table(out, "runs")["run_id"].to_pylist()
    assert group_name(run_id, 1) in names


def test_task_name_is_short_and_has_no_slash() -> None:
    chains = (Chain("A", "protein", "MKT"),)
    assert task_name("X", Complex("a/b\tc", chains)) == "X.fold a_b\\x09c"
    assert len(task_name("X", Complex("n" * 500, chains))) == len("X.fold ") + MAX_NAME
