"""A Slurm of one node on this machine, with daemons, ports and files of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "srun", "scancel")
START_SECONDS = 60.0
# How long a job that is queued again must wait, too, which is two minutes by default.
CREDENTIAL_SECONDS = 10
CONFIG = """
ClusterName=foldcp-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={credential_seconds}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why no Slurm can be started here; empty if it can."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"Slurm's programs are not installed: {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "Slurm's daemons need root"


class Slurm:
    """The daemons, which end with `close`; `environment` is that of its commands and jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLURM")},
            "SLURM_CONF": str(folder / "slurm.conf"),
            "HOME": str(folder),  # where Ray keeps its token
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
        }
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._write_files()
        munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        munge.append(f"--socket={folder}/munge.socket")
        self._start("munged", "--foreground", "--force", *munge)
        self._wait((folder / "munge.socket").exists, "munged")
        self._start("slurmctld", "-D", "-c")
        self._start("slurmd", "-D")
        self._wait(lambda: "idle" in self.command("sinfo", "-h", "-o", "%T"), "slurmd")

    def _write_files(self) -> None:
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(64))
        key.chmod(0o600)
        ports = free_ports(2)
        config = CONFIG.format(
            host=socket.gethostname().partition(".")[0],
            folder=self.folder,
            controller_port=ports[0],
            node_port=ports[1],
            credential_seconds=CREDENTIAL_SECONDS,
            cpus=os.cpu_count(),
        )
        (self.folder / "slurm.conf").write_text(config)
        programs = {
            "python": "",
            "ray": "-m ray.scripts.scripts",
            "foldcp": "-m foldcp",
        }
        for name, module in programs.items():
            script = self.folder / "bin" / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
            script.chmod(0o755)

    def _start(self, program: str, *options: str) -> None:
        with (self.folder / f"{program}.out").open("wb") as log:
            command = [program, *options]
            self._daemons.append(
                subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
            )

    def _wait(self, condition: Callable[[], bool], program: str) -> None:
        end = time.monotonic() + START_SECONDS
        while not condition():
            log = self.folder / f"{program}.out"
            assert time.monotonic() < end, f"{program}: {log.read_text()[-2000:]}"
            time.sleep(0.2)

    def command(self, *words: str) -> str:
        """The output of one of Slurm's commands; empty when it fails."""
        result = subprocess.run(
            words, env=self.environment, cwd=self.folder, capture_output=True, text=True
        )
        return result.stdout.strip() if result.returncode == 0 else ""

    def field(self, job: str, name: str) -> str:
        """A field of a job, such as JobState."""
        fields = self.command("scontrol", "show", "job", "--oneliner", job).split()
        return dict(word.partition("=")[::2] for word in fields).get(name, "")

    def send_warning(self, job: str) -> None:
        """What Slurm does before the wall time, as `#SBATCH --signal B:TERM@300` asks."""
        self.command("scancel", "--batch", "--signal", "TERM", job)

    def close(self) -> None:
        """End all jobs and then the daemons."""
        self.command("scancel", "--state", "PENDING")
        self.command("scancel", "--state", "RUNNING")
        end = time.monotonic() + START_SECONDS
        while self.command("squeue", "-h") and time.monotonic() < end:
            time.sleep(0.5)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait(20)


def free_ports(number: int) -> list[int]:
    """Ports on which nobody listens now."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
