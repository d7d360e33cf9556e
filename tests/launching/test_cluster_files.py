"""The files of configs/cluster: what can be checked of them without a cluster."""

from __future__ import annotations

import re
import shlex
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from foldcp.pipeline.cli import app

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "configs" / "cluster"
SCRIPTS = sorted(CLUSTER.glob("*.sbatch"))
KUBERAY: dict[str, Any] = yaml.safe_load((CLUSTER / "kuberay.yaml").read_text())
RAY = KUBERAY["spec"]["rayClusterSpec"]
PODS = [RAY["headGroupSpec"], *RAY["workerGroupSpecs"]]
POD_SPECS = [pod["template"]["spec"] for pod in PODS]


def accept(command: str) -> None:
    """Let the command line parse a command of foldcp."""
    name, *words = shlex.split(command)[1:]
    parser = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    parser.make_context(name, words)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_read_by_bash_and_show_commands_that_exist(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    comment = " ".join(
        line.lstrip("# ").rstrip("\\ ") for line in text.splitlines() if line.startswith("#")
    )
    example = re.search(rf"{script.name} (?:shards )?(.*?)(?: The |\) sbatch)", comment)
    assert example is not None
    out = "" if "--out" in example[1] else " --out run"
    accept(f"foldcp score {example[1]}{out}")
    assert "--signal B:TERM@300" in text and "--requeue" in text


def test_ray_job_runs_a_command_that_exists_where_its_volume_is() -> None:
    entrypoint = KUBERAY["spec"]["entrypoint"]
    accept(entrypoint)
    words = shlex.split(entrypoint)
    assert words[words.index("--address") + 1] == "auto"
    paths = [word for word in words if word.startswith("/")]
    assert len(paths) == 5 and all(path.startswith("/data/") for path in paths)


def test_ray_job_has_known_keys() -> None:
    assert (KUBERAY["apiVersion"], KUBERAY["kind"]) == ("ray.io/v1", "RayJob")
    assert KUBERAY["spec"].keys() == {
        "entrypoint",
        "backoffLimit",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "rayClusterSpec",
    }
    assert RAY.keys() == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert RAY["headGroupSpec"].keys() == {"rayStartParams", "template"}
    numbers = {"groupName", "replicas", "minReplicas", "maxReplicas"}
    for group in RAY["workerGroupSpecs"]:
        assert group.keys() == numbers | {"rayStartParams", "template"}
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for spec in POD_SPECS:
        assert spec.keys() == {"securityContext", "containers", "volumes"}


def test_ray_job_has_gpus_on_its_workers_alone_and_asks_for_a_token() -> None:
    gpus = [
        spec["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", "0")
        for spec in POD_SPECS
    ]
    assert gpus == ["0", "8", "0"]
    head = RAY["headGroupSpec"]["rayStartParams"]
    assert (head["num-gpus"], head["num-cpus"]) == ("0", "0")
    assert RAY["authOptions"] == {"mode": "token"}
    assert RAY["rayVersion"] == metadata.version("ray")


def test_all_pods_share_the_volume_and_none_runs_as_root() -> None:
    for spec in POD_SPECS:
        (container,) = spec["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts == {"data": "/data", "shm": "/dev/shm"}
        assert {volume["name"] for volume in spec["volumes"]} == mounts.keys()
        assert spec["securityContext"]["runAsNonRoot"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["image"] == "foldcp:latest"


def test_images_copy_what_is_there_and_install_the_tested_versions() -> None:
    docker = (CLUSTER / "Dockerfile").read_text()
    apptainer = (CLUSTER / "foldcp.def").read_text()
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (.*)$", docker, re.MULTILINE)]
    sources = {source for words in copied for source in words}
    files = re.search(r"%files\n(.*?)\n\n", apptainer, re.DOTALL)
    assert files is not None
    assert {line.split()[0] for line in files[1].splitlines()} == sources
    assert all((ROOT / source).exists() for source in sources)
    for text in (docker, apptainer):
        assert "python:3.11-slim-bookworm" in text
        assert text.count("--constraint constraints.txt") == 2
    assert "torch==" in (ROOT / "constraints.txt").read_text()
    instructions = re.findall(r"^([A-Z]+) ", docker, re.MULTILINE)
    assert set(instructions) <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENTRYPOINT", "CMD"}
    assert re.findall(r"^USER (.*)$", docker, re.MULTILINE) == ["foldcp"]
    sections = re.findall(r"^%(\w+)$", apptainer, re.MULTILINE)
    assert sections == ["files", "post", "environment", "runscript"]
