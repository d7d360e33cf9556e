"""Lets a worker of Ray be forked by the launcher of its lane, instead of starting here.

Imported by every Python process that has this folder on its PYTHONPATH: those of Ray, and a driver
that has started itself again. The folder of the lane is in FOLDCP_CHAOS.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
import socket
import sys
from pathlib import Path

RAY_WORKER = "default_worker.py"  # what Ray runs in its workers
SOCKET = "launcher"  # as in launcher.py
PR_SET_PDEATHSIG = 1  # of prctl(2)


def wait_for_worker(command: list[str]) -> None:
    """Let the launcher fork a worker with a command, and end with it. Never returns.

    As the worker's parent is the launcher, this process is killed in its place where the raylet
    dies (see `end_with_raylet`), and the launcher kills the worker then.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    request = json.dumps([command, dict(os.environ), os.getcwd()]).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as launcher:
        launcher.connect(os.path.join(os.environ["FOLDCP_CHAOS"], SOCKET))
        socket.send_fds(launcher, [request], [0, 1, 2])
        code = launcher.recv(16)
    os._exit(int(code or 1) & 255)


if "FOLDCP_CHAOS" in os.environ:
    faulthandler.register(signal.SIGUSR1)  # for a driver that has started itself again
    if len(sys.orig_argv) > 1 and Path(sys.orig_argv[1]).name == RAY_WORKER:
        wait_for_worker(sys.orig_argv[1:])
