"""Addresses of Ray clusters that do not answer, and control services that are silent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from foldcp.pipeline.execution import ray_cluster as module
from foldcp.pipeline.execution.ray_cluster import (
    Node,
    RayConnection,
    RayLostError,
    alive_nodes,
    call_gcs,
    check_address,
    cpus_per_rank,
    ranks_per_node,
)
from foldcp.pipeline.execution.signals import StopSignals


@contextmanager
def listener() -> Iterator[str]:
    """An address where a connection is taken and nothing is answered."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_check_address_refuses_addresses_that_do_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert check_address("") == ""
    for address in (
        "127.0.0.1:1",
        "127.0.0.1:99999999",
        "no.such.host.invalid:6379",
    ):
        with pytest.raises(ValueError, match=f"--address {address}: no Ray cluster answers"):
            check_address(address)
    for address in ("nowhere", "127.0.0.1:seven", ":6379"):
        with pytest.raises(ValueError, match=f"^--address {address}: expected HOST:PORT, such as"):
            check_address(address)
    monkeypatch.setattr(module, "CONNECT_SECONDS", 3.0)
    with (
        listener() as silent,
        pytest.raises(ValueError, match="no Ray cluster answers"),
    ):
        check_address(silent)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(ValueError, match="no Ray cluster was started"):
        check_address("auto")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text("127.0.0.1:1\n")
    with pytest.raises(ValueError, match=r"--address 127\.0\.0\.1:1: no Ray cluster answers"):
        check_address("auto")


def test_call_gcs_raises_when_the_control_service_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silence = threading.Event()
    monkeypatch.setattr(module, "GCS_SECONDS", 0.05)
    with pytest.raises(RayLostError, match="did not answer"):
        call_gcs(silence.wait)
    silence.set()
    assert call_gcs(lambda: 7) == 7


def test_alive_nodes_raises_when_that_of_the_process_is_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = [
        {"NodeID": "a", "NodeManagerHostname": "h", "Resources": {"CPU": 2.0}, "Alive": True},
        {"NodeID": "b", "NodeManagerHostname": "h", "Resources": {}, "Alive": False},
    ]
    own = SimpleNamespace(get_node_id=lambda: "a")
    monkeypatch.setattr(module.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(module.ray, "get_runtime_context", lambda: own)
    assert alive_nodes() == [Node("a", "h", 2, 0)]
    own.get_node_id = lambda: "b"
    with pytest.raises(RayLostError, match="the Ray node of this process is dead"):
        alive_nodes()


def test_check_address_gives_the_token_that_the_cluster_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As that of `ray start` does on a machine where Ray has made a token."""
    wanted = "nothing"
    given = []

    def connect(address: str, **environment: str) -> str:
        return "" if environment.get("RAY_AUTH_MODE") == wanted else "Failed to connect"

    monkeypatch.setattr(module, "_connect", connect)
    monkeypatch.setattr(module, "_give_token", lambda: given.append("token"))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with listener() as address:
        with pytest.raises(ValueError, match="Failed to connect"):
            check_address(address)
        assert not given
        wanted = "token"
        assert check_address(address) == address
        assert given == ["token"]
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # is not tried again
        with pytest.raises(ValueError, match="Failed to connect"):
            check_address(address)
        assert given == ["token"]


def test_a_process_that_gives_the_token_connects_with_it() -> None:
    """In another process: Ray keeps it for as long as one lives."""
    program = (
        "from ray._raylet import AuthenticationMode, get_authentication_mode as mode\n"
        "from foldcp.pipeline.execution.ray_cluster import _give_token\n"
        "before = mode()\n"
        "_give_token()\n"
        "assert before == AuthenticationMode.DISABLED, before\n"
        "assert mode() == AuthenticationMode.TOKEN, mode()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def test_check_address_blames_no_token_when_the_cluster_was_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_give_token", lambda: pytest.fail("not asked for"))
    answers = iter(["no Ray cluster answers there", "", ""])
    monkeypatch.setattr(module, "_connect", lambda address, **environment: next(answers))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with listener() as address:
        assert check_address(address) == address


# Ray's control service is stopped as soon as it is there.
STOPPED = """
import os, signal, threading, time, psutil
from foldcp.pipeline.execution import ray_cluster

def stop() -> None:
    while True:
        for process in psutil.Process().children(recursive=True):
            if process.name() == "gcs_server":
                os.kill(process.pid, signal.SIGSTOP)
                return
        time.sleep(0.002)

threading.Thread(target=stop, daemon=True).start()
ray_cluster.START_SECONDS = 3.0
with ray_cluster.RayConnection("", 1, verbose=False) as connection:
    connection.wait()
"""


def test_ray_that_hangs_while_it_starts_is_one_error() -> None:
    command = [sys.executable, "-c", STOPPED]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    last = process.stderr.splitlines()[-1]
    assert last.startswith("ValueError: Ray did not start within 3 s; its logs are in "), last
    folder = Path(last.rpartition(" ")[2])
    assert folder.is_dir() and folder.name == "logs"


def test_closing_a_connection_that_never_began_does_nothing() -> None:
    with module.RayConnection("", 1, verbose=False) as connection:
        pass
    assert not connection._daemons


def test_ranks_per_node_are_gpus_or_cpus() -> None:
    nodes = [Node("a", "host1", 64, 8), Node("b", "host2", 2, 8), Node("c", "head", 4, 0)]
    assert ranks_per_node(nodes, "cuda", 3, 0) == {"a": 8, "b": 8}
    assert ranks_per_node(nodes, "cuda", 3, 11) == {"a": 8, "b": 3}
    assert ranks_per_node(nodes, "cpu", 3, 0) == {"a": 3, "b": 2, "c": 3}
    assert ranks_per_node(nodes[2:], "cuda", 3, 0) == {}
    assert [cpus_per_rank(node, "cuda") for node in nodes[:2]] == [1.0, 0.125]
    assert cpus_per_rank(nodes[1], "cpu") == 1.0


READING = """
import time
from foldcp.pipeline.execution.ray_cluster import RayConnection

with RayConnection("", 1, verbose=False) as connection:
    connection.begin()
    time.sleep(60)
"""


def test_sigterm_while_the_input_is_read_leaves_no_process_of_ray() -> None:
    """Agents of a node outlive its raylet where nobody waits for dead processes."""
    command = [sys.executable, "-X", "faulthandler", "-c", READING]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    found: list[psutil.Process] = []
    end = time.monotonic() + 60
    while not any(map(is_agent, found)) and time.monotonic() < end:
        found = running(psutil.Process(process.pid).children(recursive=True))
        time.sleep(0.05)
    process.terminate()
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # it tells where its threads are
    _, err = process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGTERM, err
    end = time.monotonic() + 10
    while running(found) and time.monotonic() < end:
        time.sleep(0.05)
    assert not running(found)


def is_agent(process: psutil.Process) -> bool:
    """Whether a process is the agent of a node, under its first title or its second."""
    try:
        title = process.cmdline()
    except psutil.NoSuchProcess:
        return False
    return title[:1] == ["ray::RuntimeEnvAgent"] or any(x.endswith("agent/main.py") for x in title)


def running(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that are neither dead nor zombies."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


# The control service dies, and a call needs it: a function's definition is stored there.
STUCK = """
import sys, psutil
from foldcp.pipeline.execution import ray_cluster
import ray
from ray.cluster_utils import Cluster

address = ""
if sys.argv[1] == "joined":
    head = {"include_dashboard": False, "num_cpus": 1, "object_store_memory": 80_000_000}
    address = Cluster(initialize_head=True, head_node_args=head).address
ray_cluster.STUCK_SECONDS = 2.0
with ray_cluster.RayConnection(address, 1, verbose=False) as connection:
    connection.wait()
    with connection.watched():
        for process in psutil.Process().children(recursive=True):
            if process.name() == "gcs_server":
                process.kill()
        ray.remote(lambda: 1).remote()
"""


@pytest.mark.parametrize("cluster", ["own", "joined"])
def test_a_process_that_waits_for_a_dead_control_service_is_ended_as_one_to_resume(
    cluster: str,
) -> None:
    command = [sys.executable, "-c", STUCK, cluster]
    process = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert process.returncode == 75, process.stderr
    assert "foldcp: Ray is lost and does not return from a call: stopping" in process.stderr


def test_a_watched_process_goes_on_while_ray_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(module, "end_process", lambda *arguments: ended.set())
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(module, "STUCK_SECONDS", 0.1)
    connection = RayConnection("", 1, verbose=False)
    answers = [True, True, False, True, True]  # a cluster's service is started again
    monkeypatch.setattr(connection, "_answers", lambda: answers.pop(0) if answers else True)
    with connection.watched():
        assert not ended.wait(0.5)
    assert not answers
    monkeypatch.setattr(connection, "_answers", lambda: False)
    with connection.watched():
        time.sleep(0.05)  # it has noticed by itself
    assert not ended.wait(0.3)


def test_the_handler_of_sigterm_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the run's own handlers have been there in between."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(module.ray, "init", lambda **options: None)
    monkeypatch.setattr(module.ray, "shutdown", lambda: None)
    with RayConnection("", 1, verbose=False) as connection:
        connection.begin()
        assert signal.getsignal(signal.SIGTERM) != before
        with StopSignals():
            connection.close()
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigint_does_not_interrupt_the_end_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = []
    silence = threading.Event()
    monkeypatch.setattr(module.ray, "init", lambda **options: silence.wait())
    monkeypatch.setattr(module, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(module, "kill_descendants", lambda spared: killed.append(spared))
    connection = RayConnection("", 1, verbose=False)
    with connection:
        connection.begin()
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    silence.set()
    assert len(killed) == 1
