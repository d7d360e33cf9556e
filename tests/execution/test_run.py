"""Whole runs through Ray on CPU ranks: whatever is killed, the tables are those of an
undisturbed run.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from ray.exceptions import ObjectLostError

from foldcp.complex import Chain, Complex, Contact
from foldcp.features.msa.chain_msas import MsaSettings
from foldcp.pipeline.config import load
from foldcp.pipeline.execution.driver import Driver, Options, Run, Summary, slots
from foldcp.pipeline.execution.ray_cluster import Node
from foldcp.pipeline.execution.worker import Worker, fold_settings, inputs_of, msa_settings
from foldcp.pipeline.execution.worker_group import WorkerActor, WorkerGroupActor
from foldcp.pipeline.inputs.tasks import Failed, Task, TaskList, make_task
from foldcp.pipeline.scheduling.cost_model import PRESETS, FoldShape, load_hardware
from foldcp.pipeline.scheduling.placement import Cluster
from foldcp.pipeline.scheduling.types import WorkerConfig
from foldcp.pipeline.storage.store import read_table

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
SETTINGS = (
    "model.steps=30",
    "model.recycling=0",
    "run.cpu_ranks=2",
    "run.deadline_floor=10",
    "run.deadline_factor=1",
)


def sequence(length: int, seed: int) -> str:
    draw = random.Random(seed)
    return "".join(draw.choice(LETTERS) for _ in range(length))


def a_rank(*overrides: str) -> Worker:
    recipe = WorkerConfig(
        "untrained:tiny",
        "untrained:tiny",
        "fp32",
        load(overrides=["model.steps=2", "model.recycling=0", *overrides]),
        1,
    )
    rank = Worker(recipe)
    kernels = f"torch {torch.__version__}"
    assert rank.join(0, 1, "") == {"outcome": "ready", "kernels": kernels}
    return rank


DIMER = Complex(
    "dimer",
    (Chain("A", "protein", sequence(13, 0)), Chain("B", "protein", sequence(9, 1))),
)
ONE = FoldShape(1, "fp32", 1, 100)


def test_a_rank_folds_many_and_tells_what_it_took() -> None:
    rank = a_rank()
    first = rank.fold(DIMER, ONE)
    second = rank.fold(DIMER, ONE)
    assert first["outcome"] == "done"
    assert (first["msa_depth"], len(first["layout"].token_chain)) == (1, 22)
    assert set(first["seconds"]) >= {"features", "trunk", "sampling", "confidence"}
    assert 1e8 < first["peak_bytes"] < 1e10
    np.testing.assert_array_equal(first["prediction"].coords, second["prediction"].coords)
    assert not first["prediction"].pae
    assert len(a_rank("write=pae").fold(DIMER, ONE)["prediction"].pae) == 1


def test_a_rank_folds_what_was_planned_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.a3m"
    path.write_text(f">q\n{sequence(13, 0)}\n>h\n{sequence(13, 2)}\n")
    rank = a_rank()
    complex = replace(DIMER, chains=(replace(DIMER.chains[0], msa=path), DIMER.chains[1]))
    planned = make_task(complex, rank.recipe.config, "w").complex
    done = rank.fold(planned, ONE)
    assert done["outcome"] == "done" and done["layout"].chain_msa_depth.tolist() == [
        2,
        1,
    ]
    path.write_text(f">q\n{sequence(13, 0)}\n>h\n{sequence(13, 3)}\n")
    answer = rank.fold(planned, ONE)
    assert answer["outcome"] == "invalid"
    assert f"alignment {path}: its content has changed since the run began" in answer["reason"]


def test_features_made_ahead_are_taken_and_without_them_a_rank_makes_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    actor = WorkerActor.__ray_actor_class__(None)
    actor.rank = a_rank()
    expected = actor.rank.fold(DIMER, ONE)["prediction"]
    inputs = inputs_of(DIMER, actor.rank.recipe.config, ONE)
    store = {"made": inputs, "at fault": None}

    def get(ref: str, timeout: float) -> object:
        if ref == "lost":
            raise ObjectLostError("its id", None, "its owner")
        return store[ref]

    monkeypatch.setattr("ray.get", get)
    monkeypatch.setattr("ray.put", lambda part: part)
    for ahead in ([], ["at fault"], ["lost"]):
        np.testing.assert_array_equal(
            actor.fold(DIMER, ONE, ahead)["prediction"].coords, expected.coords
        )
    monkeypatch.setattr("foldcp.pipeline.execution.worker.featurize", None)
    np.testing.assert_array_equal(
        actor.fold(DIMER, ONE, ["made"])["prediction"].coords, expected.coords
    )


def test_forced_contacts_and_potentials_steer() -> None:
    free = a_rank("model.steps=8").fold(DIMER, ONE)
    forced = replace(DIMER, contacts=(Contact(("A", 1), ("B", 9), 4.0, force=True),))
    for rank, complex in (
        (a_rank("model.steps=8"), forced),
        (a_rank("model.steps=8", "model.potentials=true"), DIMER),
    ):
        steered = rank.fold(complex, ONE)
        assert steered["outcome"] == "done"
        assert np.abs(steered["prediction"].coords - free["prediction"].coords).max() > 0.01


def test_a_rank_tells_bad_input_from_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank = a_rank()
    (tmp_path / "a.a3m").write_text(">q\nMKTAYI\n")
    wrong = replace(DIMER, chains=(replace(DIMER.chains[0], msa=tmp_path / "a.a3m"),))
    answer = rank.fold(wrong, ONE)
    assert answer["outcome"] == "invalid"
    assert "a.a3m" in answer["reason"]
    errors = {
        "oom": [torch.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError(),
                RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")],
        "raised": [RuntimeError("a bug"), AssertionError("another")],
    }  # fmt: skip
    for outcome, raised in errors.items():
        for error in raised:

            def fail(*_: object, constraints: object, error: BaseException = error) -> None:
                raise error

            monkeypatch.setattr("foldcp.pipeline.execution.worker.fold", fail)
            if outcome == "oom":
                assert rank.fold(DIMER, ONE)["outcome"] == "oom"
            else:
                with pytest.raises(type(error)):
                    rank.fold(DIMER, ONE)


def test_settings_reach_the_network_and_the_alignments() -> None:
    config = load(
        overrides=[
            "model.recycling=7",
            "model.steps=11",
            "model.samples=6",
            "model.seed=5",
            "write=pae",
            "msa.max_rows=50",
            "msa.corrected=true",
            "msa.subsample=8",
        ]
    )
    settings = fold_settings(config, FoldShape(3, "bf16", 2, 40))
    assert (settings.recycling, settings.steps, settings.samples, settings.seed) == (
        7,
        11,
        6,
        5,
    )
    assert (settings.parallel_samples, settings.precision, settings.msa_subsample) == (
        2,
        "bf16",
        8,
    )
    assert settings.keep_pairs
    alignments = msa_settings(config, 40)
    assert (alignments.max_file_rows, alignments.max_paired, alignments.max_rows) == (
        50,
        40,
        40,
    )
    assert alignments.corrected
    # What Boltz does is what happens without any setting.
    assert msa_settings(load(), 2 * 8192) == MsaSettings()


def test_the_arithmetic_of_the_sampler_is_a_setting() -> None:
    def arithmetic(*overrides: str) -> torch.dtype:
        return a_rank(*overrides).model.structure_module.score_model.token_transformer.dtype

    assert arithmetic() == arithmetic("model.sampling=fp32") == torch.float32
    assert arithmetic("model.sampling=bf16") == torch.bfloat16


class FakeRank:
    """Stands for an actor's handle; remembers how it was asked to join."""

    def __init__(
        self, place: tuple[str, str], joined: dict[tuple[str, str], tuple[object, ...]]
    ) -> None:
        self.answer = {"outcome": "ready"}
        self.join = SimpleNamespace(
            remote=lambda *args: joined.update({place: args}) or self.answer
        )
        self.meeting = SimpleNamespace(remote=lambda: "tcp://here:1")


def test_ranks_are_numbered_by_node_and_gpu() -> None:
    placement = (("n2", 3), ("n1", 2))
    places = [
        ("n1", "10"),
        ("n2", "7"),
        ("n2", "0"),
        ("n1", "9"),
        ("n2", "2"),
    ]  # in no order
    group = WorkerGroupActor.__ray_actor_class__("name", placement, None, "cuda", 1.0)
    joined: dict[tuple[str, str], tuple[object, ...]] = {}
    group.ranks = [FakeRank(place, joined) for place in places]
    group._ask = list
    in_order = [("n2", "0"), ("n2", "2"), ("n2", "7"), ("n1", "9"), ("n1", "10")]
    assert group._join(places) == {"outcome": "ready", "places": in_order}
    assert joined == {
        ("n2", "0"): (0, 5, "tcp://here:1", "cuda:0", "0,2,7"),
        ("n2", "2"): (1, 5, "tcp://here:1", "cuda:1", "0,2,7"),
        ("n2", "7"): (2, 5, "tcp://here:1", "cuda:2", "0,2,7"),
        ("n1", "9"): (3, 5, "tcp://here:1", "cuda:0", "9,10"),
        ("n1", "10"): (4, 5, "tcp://here:1", "cuda:1", "9,10"),
    }
    changed = {"outcome": "invalid", "reason": "the weights have changed"}
    for rank in group.ranks:
        rank.answer = changed
    assert group._join(places) == changed


def test_slots_of_a_cluster() -> None:
    nodes = [
        Node("a", "host1", 64, 8),
        Node("b", "host2", 64, 8),
        Node("c", "head", 4, 0),
    ]
    cuda = load_hardware("h200")
    cpu = load_hardware("cpu")
    config = load(overrides=["run.cpu_ranks=3"])
    assert slots(nodes, cuda, config, 0) == {"a": 8, "b": 8}
    assert slots(nodes, cuda, config, 11) == {"a": 8, "b": 3}
    assert slots(nodes, cpu, config, 0) == {"a": 3, "b": 3, "c": 3}
    with pytest.raises(ValueError, match="no node"):
        slots(nodes[2:], cuda, config, 0)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENOENT])
def test_a_disk_that_fails_ends_the_run_and_files_nothing(tmp_path: Path, number: int) -> None:
    def fail(*_: object, keep: bool) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "file"))

    prepared = SimpleNamespace(work=TaskList((), (), 0), config=load(), present=None)
    store = SimpleNamespace(root=tmp_path, mark_stale=fail)
    run = Run(prepared, store, load_hardware("cpu"), Options(), SimpleNamespace(number=0))  # type: ignore[arg-type]
    summary = run.score(1)
    assert summary.stopped.startswith(f"{tmp_path}/file: {os.strerror(number)}; the run resumes")
    assert (summary.exit_code, summary.is_complete, summary.failed) == (3, False, ())


def test_exit_codes() -> None:
    failed = Failed(Task(DIMER, "key", 22, 1), 2, "a reason")
    assert Summary(3, (), ()).exit_code == 0
    assert Summary(3, (failed,), ()).exit_code == 1
    assert Summary(3, (failed,), (), stopped="no node is left").exit_code == 3
    assert Summary(3, (failed,), (), signal=15, stopped="a daemon of Ray is dead").exit_code == 143


def test_nodes_that_have_gone_are_lost_and_new_ones_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[object, ...]] = []
    driver = object.__new__(Driver)
    driver.connection = SimpleNamespace(check=lambda: None)  # type: ignore[assignment]
    driver.nodes = {name: Node(name, f"host {name}", 8, 0) for name in ("a", "b")}
    driver.prepared = SimpleNamespace(config=load(overrides=["run.cpu_ranks=3"]))  # type: ignore[assignment]
    driver.costs = SimpleNamespace(hardware=load_hardware("cpu"))  # type: ignore[assignment]
    driver.zero = 0.0
    driver.groups = {}
    driver.scheduler = SimpleNamespace(  # type: ignore[assignment]
        cluster=Cluster({"a": 3, "b": 3}),
        lose_node=lambda node, reason, now: told.append((node, reason)) or [],
        add_node=lambda node, count: told.append((node, count)),
    )
    monkeypatch.setattr(
        "foldcp.pipeline.execution.driver.alive_nodes",
        lambda: [Node("b", "host b", 8, 0), Node("c", "new", 2, 0)],
    )
    driver.options = Options()
    driver._look_at_nodes()
    assert told == [("a", "node host a is gone"), ("c", 2)]
    told.clear()
    driver._look_at_nodes()  # what is known is told once
    assert told == [("a", "node host a is gone")]
    del driver.nodes["c"]
    driver.options = Options(gpus=6)  # as many as there are
    told.clear()
    driver._look_at_nodes()
    assert told == [("a", "node host a is gone")]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five complexes for one rank, one that needs two, one that fits no group, and a record that
    is no complex.
    """
    folder = tmp_path_factory.mktemp("input")
    lengths = {
        "a": (20, 17),
        "b": (25, 14, 9),
        "c": (31,),
        "d": (16, 16),
        "e": (40, 11),
        "two": (77, 50),
        "giant": (300,),
    }
    lines = [
        f">{name}\n{':'.join(sequence(n, 100 * i + j) for j, n in enumerate(sizes))}\n"
        for i, (name, sizes) in enumerate(lengths.items())
    ]
    (folder / "in.fasta").write_text("".join(lines) + ">bad\nMK1\n")
    hardware = yaml.safe_load((PRESETS / "cpu.yaml").read_text())
    (folder / "small.yaml").write_text(
        yaml.safe_dump(hardware | {"pair_bytes_fp32": 8e6, "memory_gb": 12.0})
    )
    return folder / "in.fasta"


def command(
    source: Path,
    out: Path,
    hardware: str | Path = "",
    num_ranks: int = 0,
    settings: Sequence[str] = SETTINGS,
) -> list[str | Path]:
    """`foldcp score`, on devices as small.yaml beside the source declares them unless told
    otherwise.
    """
    program = "from foldcp.pipeline.cli import main; main()"
    options = [part for setting in settings for part in ("--set", setting)]
    return [
        sys.executable,
        "-c",
        program,
        "score",
        source,
        "--out",
        out,
        "--checkpoint",
        "untrained:tiny",
        "--hardware",
        hardware or source.parent / "small.yaml",
        "--gpus",
        str(num_ranks),
        *options,
    ]


def score(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(source, out), capture_output=True, text=True, timeout=240)


def begin(source: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(source, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait_for(
    what: Callable[[], object], process: subprocess.Popen[bytes], seconds: float = 120.0
) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came"
        assert process.poll() is None, "the run ended before"
        time.sleep(0.02)


def num_stored(out: Path) -> int:
    """Results of complexes that are complete; attempts and runs have names with dashes."""
    return sum("-" not in path.stem for path in (out / "receipts").glob("*.json"))


def folding_ranks(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Ranks that are folding: Ray names a process after the method that it runs."""
    found = []
    for child in psutil.Process(driver.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "WorkerActor.fold" in child.name():
                found.append(child)
    return found


def tables(out: Path) -> dict[str, pd.DataFrame]:
    return {
        name: read_table(out, name).to_pandas() for name in ("complexes", "chains", "interfaces")
    }


def assert_equal(left: dict[str, pd.DataFrame], right: dict[str, pd.DataFrame]) -> None:
    """Equal rows; the group's size may differ, and with it the last digits."""
    for name, expected in right.items():
        found = left[name]
        assert len(found) == len(expected)
        for column in expected.columns.drop("group_size", errors="ignore"):
            if expected[column].dtype.kind == "f":
                np.testing.assert_allclose(
                    found[column],
                    expected[column],
                    rtol=1e-3,
                    atol=2e-3,
                    err_msg=column,
                )
            else:
                assert (
                    found[column].fillna("none").tolist()
                    == expected[column].fillna("none").tolist()
                ), column


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    result = score(source, out)
    assert result.returncode == 1, result.stderr  # one complex is too large
    assert "6 done, 1 failed, 1 cannot be built" in result.stdout
    assert "giant" in result.stderr
    return out


def test_every_complex_has_its_rows(undisturbed: Path) -> None:
    found = tables(undisturbed)
    complexes = found["complexes"].set_index("name")
    assert complexes["outcome"].to_dict() == {
        "a": "done", "b": "done", "c": "done", "d": "done", "e": "done", "two": "done", "giant": "failed",
        "bad": "invalid",
    }  # fmt: skip
    assert complexes["group_size"]["two"] == 2
    assert "need" in complexes["reason"]["giant"]
    pairs = found["interfaces"].groupby("name").size().to_dict()
    assert pairs == {
        "a": 2,
        "b": 6,
        "d": 2,
        "e": 2,
        "two": 2,
    }  # every directed pair of different chains once
    assert found["chains"].groupby("name").size()["b"] == 3
    attempts = read_table(undisturbed, "attempts").to_pandas()
    assert attempts["outcome"].tolist() == ["done"] * 6
    assert (attempts["peak_bytes"] > 1e8).all()
    for structure in complexes["structure"].dropna():
        assert (undisturbed / structure).stat().st_size > 1000


def test_a_killed_or_stopped_driver_goes_on_with_the_same_command(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    driver = begin(source, out)
    wait_for(lambda: num_stored(out) >= 3, driver)  # beside what has no result from the start
    ranks = [
        p for p in psutil.Process(driver.pid).children(recursive=True) if "WorkerActor" in p.name()
    ]
    time.sleep(random.random())
    driver.send_signal(signal.SIGKILL)
    driver.wait(20)
    assert ranks
    assert not psutil.wait_procs(ranks, timeout=20)[1], "ranks outlive their driver"

    driver = begin(source, out)
    before = num_stored(out)
    wait_for(lambda: num_stored(out) > before or folding_ranks(driver), driver)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(60) == 128 + signal.SIGTERM

    result = score(source, out)
    assert result.returncode == 1
    assert_equal(tables(out), tables(undisturbed))
    runs = read_table(out, "runs").to_pandas()
    assert runs["status"].tolist() == ["interrupted", "interrupted", "finished"]
    again = score(source, out)
    assert "6 of 7 complexes are done already" in again.stderr
    assert_equal(tables(out), tables(undisturbed))


def test_a_killed_and_a_hanging_rank_cost_their_groups_and_nothing_else(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    driver = begin(source, out)
    wait_for(lambda: len(folding_ranks(driver)) == 2, driver)
    os.kill(folding_ranks(driver)[0].pid, signal.SIGKILL)  # of the group of two, which comes first
    wait_for(lambda: num_stored(out) >= 5, driver)
    wait_for(lambda: folding_ranks(driver), driver)
    os.kill(folding_ranks(driver)[0].pid, signal.SIGSTOP)
    assert driver.wait(120) == 1
    attempts = read_table(out, "attempts").to_pandas()
    assert attempts["outcome"].value_counts().to_dict() == {
        "done": 6,
        "worker_died": 1,
        "timeout": 1,
    }
    assert attempts.loc[attempts["outcome"] == "worker_died", "name"].tolist() == ["two"]
    assert "died" in attempts.loc[attempts["outcome"] == "worker_died", "reason"].item()
    assert_equal(tables(out), tables(undisturbed))
