"""Other engines beside foldcp: each measured in a process of its own, where it is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec

from foldcp.pipeline.bench.measurements import FoldPlan, NotMeasured, PeerTime
from foldcp.pipeline.config import nearest

MODULES = {"boltz": "boltz", "bioir": "bionemo_ir"}  # engine -> what it is imported as
MAX_SECONDS = 3600.0  # for all sizes of an engine


def parse_peers(text: str) -> tuple[str, ...]:
    """boltz,bioir -> ("boltz", "bioir"). Raises ValueError for an engine that is unknown."""
    names = tuple(part.strip() for part in text.split(",")) if text else ()
    for name in names:
        if name not in MODULES:
            similar = nearest(name, list(MODULES))
            raise ValueError(f"--beside {text}: unknown engine {name!r}{similar}")
    return names


def measure_peer(
    engine: str, sizes: tuple[int, ...], plan: FoldPlan
) -> Iterator[PeerTime | NotMeasured]:
    """Whole predictions by another engine; NotMeasured, once, where it is not installed or
    fails.
    """
    if find_spec(MODULES[engine]) is None:
        yield NotMeasured(engine, f"the package {MODULES[engine]} is not installed here")
        return
    job = json.dumps({"tokens": sizes, "plan": asdict(plan)})
    command = [sys.executable, "-m", "foldcp.pipeline.bench.peers.measure_peer", engine]
    try:
        ended = subprocess.run(
            command, input=job, capture_output=True, text=True, timeout=MAX_SECONDS
        )
    except subprocess.TimeoutExpired:
        yield NotMeasured(engine, f"took more than {MAX_SECONDS:.0f} s")
        return
    for line in ended.stdout.splitlines():
        if line.startswith("{"):
            measured = json.loads(line)
            yield PeerTime(engine, measured["tokens"], measured["seconds"], measured["peak_bytes"])
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        yield NotMeasured(engine, lines[-1] if lines else f"ended with {ended.returncode}")
