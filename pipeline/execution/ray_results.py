"""Results of Ray calls, with exceptions and deaths as Failures.

And the root cause among the failures of a worker group.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foldcp.pipeline.execution import ray_cluster  # noqa: F401  sets Ray's environment
from foldcp.pipeline.execution.results import RemoteFoldResult, ResultLostError
from foldcp.pipeline.scheduling.types import Failure, FailureKind

import ray  # isort: skip  after ray_cluster.py, which sets its environment
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

if TYPE_CHECKING:
    from foldcp.metrics.interface.pae_blocks import PaeBlock
    from foldcp.predict import Prediction

GRACE_SECONDS = 2.0  # in which the other ranks may report the root cause of a failure
FETCH_SECONDS = 30.0  # for a prediction, which is some megabytes
PaeRefs = Mapping[int, Sequence[Any]]  # sample -> reference to the blocks of each rank
# A rank that died looks to the others like a broken connection, so among failures at the same time
# the first of these is the root cause.
ROOT_CAUSES: tuple[FailureKind, ...] = ("oom", "worker_died", "error")


def result_or_failure(ref: Any, name: str, timeout: float | None = None) -> Any:
    """The result of a Ray call; a death or an exception becomes a Failure."""
    try:
        return ray.get(ref, timeout=timeout)
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        lines = str(cause).strip().splitlines() or [""]
        reason = f"{name}: {type(cause).__name__}: {lines[0]}"
        return Failure("error", reason, traceback=str(error))
    except OutOfMemoryError as error:
        return _killed_for_memory(name, error)
    except RayActorError as error:
        if "memory pressure" in str(error) or "low on memory" in str(error):
            return _killed_for_memory(name, error)
        return Failure("worker_died", f"{name} died", traceback=str(error))
    except RayError as error:
        return Failure("worker_died", f"{name}: {type(error).__name__}", traceback=str(error))


def _killed_for_memory(name: str, error: RayError) -> Failure:
    reason = f"{name} was killed: the machine was low on memory"
    return Failure("oom", reason, killed=True, traceback=str(error))


def fetch_prediction(result: RemoteFoldResult, name: str) -> Prediction | Failure:
    """A prediction from the object store.

    A Failure if the worker that keeps it has died.
    """
    return result_or_failure(result.prediction_ref, name, FETCH_SECONDS)


def fetch_pae_blocks(refs: PaeRefs, name: str, sample: int) -> Iterator[PaeBlock]:
    """The blocks of PAE of a sample, fetched rank by rank.

    Raises ResultLostError if a worker that keeps some has died.
    """
    for ref in refs[sample]:
        blocks = result_or_failure(ref, name, FETCH_SECONDS)
        if isinstance(blocks, Failure):
            raise ResultLostError(blocks)
        yield from blocks


class GatheredResults:
    """Results of one call to all ranks of a worker group."""

    def __init__(
        self, refs: Sequence[Any], nodes: Sequence[str], invalid_is_fatal: bool = False
    ) -> None:
        """`nodes` are those of the ranks, empty while they are not known.

        An `invalid` Failure is a result if all ranks return it. A rank that does so alone leaves
        the others waiting for it, which is a failure of the group; with `invalid_is_fatal` it is
        that of the group in any case, and known at once.
        """
        self._refs = list(refs)
        self._invalid_is_fatal = invalid_is_fatal
        self._results: dict[Any, Any] = {}
        self._nodes = nodes
        self._rank_of = {ref: rank for rank, ref in enumerate(refs)}
        self._pending = list(refs)
        self._kills_before = num_oom_kills()

    def wait(self) -> list[Any] | Failure:
        """The results of all ranks, or the failure of the group as soon as it is known."""
        found = self.poll(None)
        assert found is not None
        return found

    def poll(self, seconds: float | None) -> list[Any] | Failure | None:
        """The same, or None when nothing has come for so many seconds."""
        while self._pending:
            done, self._pending = ray.wait(self._pending, num_returns=1, timeout=seconds)
            if not done:
                return None
            (ref,) = done
            result = self._result(ref)
            self._results[ref] = result
            if not isinstance(result, Failure):
                continue
            if result.kind != "invalid":
                return self._root_cause(result)
            if self._invalid_is_fatal:
                return result
            if self._pending and self._wait_for_others():
                alone = replace(result, kind="error", node=self._node(ref))
                return self._root_cause(alone)
        return [self._results[ref] for ref in self._refs]

    def _wait_for_others(self) -> list[Any]:
        """The ranks that have no result after `GRACE_SECONDS`."""
        _, late = ray.wait(self._pending, num_returns=len(self._pending), timeout=GRACE_SECONDS)
        return late

    def _result(self, ref: Any) -> Any:
        """The result of a rank.

        A failure names its node, and says when the system killed the rank to free memory.
        """
        result = result_or_failure(ref, f"rank {self._rank_of[ref]}")
        if not isinstance(result, Failure) or result.kind == "invalid":
            return result
        if result.kind == "worker_died" and num_oom_kills() > self._kills_before:
            reason = f"{result.reason}: the system was out of memory and killed processes"
            result = replace(result, kind="oom", killed=True, reason=reason)
        return replace(result, node=self._node(ref))

    def _node(self, ref: Any) -> str:
        return self._nodes[self._rank_of[ref]] if self._nodes else ""

    def _root_cause(self, first: Failure) -> Failure:
        """The root cause among the failures within `GRACE_SECONDS` of the first."""
        failures = [first]
        end = time.monotonic() + GRACE_SECONDS
        while self._pending and (seconds_left := end - time.monotonic()) > 0:
            done, self._pending = ray.wait(self._pending, num_returns=1, timeout=seconds_left)
            results = [self._result(ref) for ref in done]
            failures += [result for result in results if isinstance(result, Failure)]
        fatal = [failure for failure in failures if failure.kind in ROOT_CAUSES]
        return min(fatal, key=lambda failure: ROOT_CAUSES.index(failure.kind))


def num_oom_kills() -> int:
    """Processes that the kernel has killed for lack of memory since it started.

    0 where it does not count them.
    """
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0
