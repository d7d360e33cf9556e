"""A group: one placement group, the ranks in it, one fate.

The group actor makes the placement group and its ranks and speaks for them. When a rank dies, fails
or runs out of memory the others may wait for it for ever, so nothing is repaired: the driver kills
the actor, whose ranks die with it, removes the placement group and makes another one.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foldcp.complex import Complex
from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.execution.ray_cluster import ask_gcs
from foldcp.pipeline.scheduling.cost_model import FoldShape
from foldcp.pipeline.scheduling.placement import Placement
from foldcp.pipeline.scheduling.types import WorkerConfig

import ray  # isort: skip  after ray_cluster.py, which sets its environment
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import (
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

AHEAD_TIMEOUT = 5.0  # seconds; what takes longer is made where it is wanted
FETCH_TIMEOUT = 30.0  # seconds; a prediction is some megabytes
GRACE = 2.0  # seconds in which the other ranks may tell the true cause of a failure
FREE_SECONDS = 0.1  # from the end of a placement group to its GPUs being free, as measured
NODE_LABEL = "ray.io/node-id"
HEAVY = ("prediction", "layout")
CAUSES = (
    "oom",
    "worker_died",
    "error",
)  # of what fails at once the first of these is the cause
Answer = dict[str, Any]


@ray.remote(num_cpus=0, max_retries=0)
def _make_ahead(complex: Complex, config: RunConfig, setup: FoldShape) -> Any:
    from foldcp.pipeline.execution.worker import inputs_of  # now, as in `join`

    try:
        return inputs_of(complex, config, setup)
    except ValueError:  # told where it is folded
        return None


def prefetch_features(complex: Complex, config: RunConfig, setup: FoldShape) -> Any:
    """Begin to make what a fold starts from, so that no GPU waits for it; the reference to it."""
    return _make_ahead.remote(complex, config, setup)


@ray.remote(max_restarts=0)
class WorkerActor:
    """A rank as a Ray actor."""

    def __init__(self, recipe: WorkerConfig) -> None:
        self.recipe = recipe

    def where(self) -> tuple[str, str]:
        """(node, GPU of it) that Ray gave; the GPU is empty on a CPU."""
        gpus = ray.get_gpu_ids()
        return ray.get_runtime_context().get_node_id(), str(gpus[0]) if gpus else ""

    def meeting(self) -> str:
        """An address on this machine where the ranks can meet."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def join(self, rank: int, size: int, meeting: str, device: str, visible: str) -> Answer:
        """See Rank. `visible` lists the GPUs of this node that the group has: all its ranks here
        see the same list, as NCCL trips over ranks that each see only their own.
        """
        if visible:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible
        from foldcp.pipeline.execution.worker import (
            Worker,
        )  # now, as torch may look at the GPUs; the group actor never needs it

        self.rank = Worker(self.recipe)
        return self.rank.join(rank, size, meeting, device)

    def fold(self, complex: Complex, setup: FoldShape, ahead: Sequence[Any]) -> Answer:
        """See Rank; the prediction goes past the group actor, straight to the driver. `ahead` has
        the reference to what `prefetch_features` began, or nothing.
        """

        def made() -> Any:
            try:
                return ray.get(ahead[0], timeout=AHEAD_TIMEOUT) if ahead else None
            except RayError:  # made here instead, where what is wrong with the input is told
                return None

        answer = self.rank.fold(complex, setup, made=made)
        return {name: ray.put(part) if name in HEAVY else part for name, part in answer.items()}


@ray.remote(num_cpus=0, max_restarts=0)
class WorkerGroupActor:
    """Owns a placement group and its ranks. `start` and `fold` answer with an `outcome`."""

    def __init__(
        self,
        name: str,
        placement: Placement,
        recipe: WorkerConfig,
        device: str,
        cpus_per_rank: float,
    ) -> None:
        self.name = name
        self.placement = placement
        self.recipe = recipe
        self.device = device
        self.cpus_per_rank = cpus_per_rank
        self.ranks: list[Any] = []
        self.rank_nodes: list[str] = []  # known once the ranks are up

    def start(self, timeout: float) -> Answer:
        """Take the GPUs, start the ranks in the order of their nodes and GPUs, load the network."""
        per_rank = {"CPU": self.cpus_per_rank} | ({"GPU": 1} if self.device == "cuda" else {})
        group = placement_group(
            [
                {name: amount * count for name, amount in per_rank.items()}
                for _, count in self.placement
            ],
            strategy="STRICT_PACK" if len(self.placement) == 1 else "STRICT_SPREAD",
            name=self.name,
            bundle_label_selector=[{NODE_LABEL: node} for node, _ in self.placement],
        )
        if not group.wait(timeout):
            state = placement_group_table(group)["stats"]["scheduling_state"]
            return {
                "outcome": "error",
                "reason": f"Ray has no room for {self.placement}: {state}",
            }
        for bundle, (_, count) in enumerate(self.placement):
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
            gpus = int(self.device == "cuda")
            actor = WorkerActor.options(
                num_cpus=self.cpus_per_rank, num_gpus=gpus, scheduling_strategy=strategy
            )
            self.ranks += [actor.remote(self.recipe) for _ in range(count)]
        places = self._ask([rank.where.remote() for rank in self.ranks])
        if isinstance(places, dict):
            return places
        return self._join(places)

    def _join(self, places: list[tuple[str, str]]) -> Answer:
        """Number the ranks by node and GPU, as Ray's order means nothing, and let them meet."""
        node_order = {node: index for index, (node, _) in enumerate(self.placement)}
        order = sorted(
            range(len(places)),
            key=lambda i: (node_order[places[i][0]], _natural(places[i][1])),
        )
        self.ranks = [self.ranks[i] for i in order]
        places = [places[i] for i in order]
        self.rank_nodes = [node for node, _ in places]
        visible = {node: [gpu for other, gpu in places if other == node] for node in node_order}
        meeting = self._ask([self.ranks[0].meeting.remote()])
        if isinstance(meeting, dict):
            return meeting
        answers = self._ask(
            [
                rank.join.remote(
                    index,
                    len(self.ranks),
                    meeting[0],
                    f"cuda:{visible[node].index(gpu)}" if self.device == "cuda" else "cpu",
                    ",".join(visible[node]),
                )
                for index, (rank, (node, gpu)) in enumerate(zip(self.ranks, places, strict=True))
            ]
        )
        if isinstance(answers, dict):
            return answers
        refused = next((answer for answer in answers if answer["outcome"] != "ready"), None)
        return refused or {"outcome": "ready", "places": places}

    def fold(self, complex: Complex, setup: FoldShape, ahead: Sequence[Any]) -> Answer:
        """All ranks fold; the answer is rank 0's, with the largest peak of memory."""
        answers = self._ask([rank.fold.remote(complex, setup, ahead) for rank in self.ranks])
        if isinstance(answers, dict):
            return answers
        if bad := next((answer for answer in answers if answer["outcome"] != "done"), None):
            return bad
        return answers[0] | {"peak_bytes": max(answer["peak_bytes"] for answer in answers)}

    def _ask(self, refs: Sequence[Any]) -> list[Any] | Answer:
        """The answers of all ranks, or the failure of one as soon as it is known."""
        rank_of = {ref: rank for rank, ref in enumerate(refs)}
        answers = {}
        pending = list(refs)
        kills = num_oom_kills()
        while pending:
            (done,), pending = ray.wait(pending, num_returns=1)
            answer = self._hear(done, rank_of[done], kills)
            if isinstance(answer, dict) and answer["outcome"] in CAUSES:
                return self._cause(answer, pending, rank_of, kills)
            answers[done] = answer
            if isinstance(answer, dict) and answer["outcome"] == "invalid" and pending:
                # Mostly all ranks say so at once. One that does so alone leaves the others waiting
                # for it.
                late = ray.wait(pending, num_returns=len(pending), timeout=GRACE)[1]
                if late:
                    alone = answer | {
                        "outcome": "error",
                        "node": self._node(rank_of[done]),
                    }
                    return self._cause(alone, pending, rank_of, kills)
        return [answers[ref] for ref in refs]

    def _hear(self, ref: Any, rank: int, kills: int) -> Any:
        """The answer of a rank; a failure names its node, and tells when the system killed it to
        free memory.
        """
        answer = hear(ref, f"rank {rank}")
        if not isinstance(answer, dict) or answer["outcome"] not in CAUSES:
            return answer
        if answer["outcome"] == "worker_died" and num_oom_kills() > kills:
            reason = f"{answer['reason']}: the system was out of memory and killed processes"
            answer |= {"outcome": "oom", "killed": True, "reason": reason}
        return answer | {"node": self._node(rank)}

    def _node(self, rank: int) -> str:
        return self.rank_nodes[rank] if self.rank_nodes else ""

    def _cause(
        self, first: Answer, pending: list[Any], rank_of: dict[Any, int], kills: int
    ) -> Answer:
        """Of what fails at once the cause: a rank that died looks to the others like a broken
        connection.
        """
        failures = [first]
        end = time.monotonic() + GRACE
        while pending and (left := end - time.monotonic()) > 0:
            done, pending = ray.wait(pending, num_returns=1, timeout=left)
            answers = [self._hear(ref, rank_of[ref], kills) for ref in done]
            failures += [answer for answer in answers if isinstance(answer, dict)]
        causes = (failure for failure in failures if failure["outcome"] in CAUSES)
        return min(causes, key=lambda failure: CAUSES.index(failure["outcome"]))


def num_oom_kills() -> int:
    """Processes that the kernel of this machine has killed for lack of memory since it started; 0
    where it does not count them.
    """
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _natural(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdigit() else (0, text)


def hear(ref: Any, who: str, timeout: float | None = None) -> Any:
    """What a call came to; a death or an exception becomes an answer too."""
    try:
        answer = ray.get(ref, timeout=timeout)
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        lines = str(cause).strip().splitlines() or [""]
        return {
            "outcome": "error",
            "reason": f"{who}: {type(cause).__name__}: {lines[0]}",
            "trace": str(error),
        }
    except OutOfMemoryError as error:
        return _killed(who, error)
    except RayActorError as error:
        if "memory pressure" in str(error) or "low on memory" in str(error):
            return _killed(who, error)
        return {"outcome": "worker_died", "reason": f"{who} died", "trace": str(error)}
    except RayError as error:
        return {
            "outcome": "worker_died",
            "reason": f"{who}: {type(error).__name__}",
            "trace": str(error),
        }
    return answer


def _killed(who: str, error: RayError) -> Answer:
    reason = f"{who} was killed: the machine was low on memory"
    return {"outcome": "oom", "killed": True, "reason": reason, "trace": str(error)}


def fetch_prediction(answer: Answer, who: str) -> Answer:
    """An answer with its prediction, which the rank kept; `lost` if the rank died since."""
    parts = {name: hear(answer[name], who, FETCH_TIMEOUT) for name in HEAVY}
    lost = next((part for part in parts.values() if isinstance(part, dict)), None)
    return lost or answer | parts


class WorkerGroupHandle:
    """The driver's handle of a group."""

    def __init__(
        self,
        name: str,
        placement: Placement,
        recipe: WorkerConfig,
        device: str,
        cpus_per_rank: float,
    ) -> None:
        self.name = name
        self.stopped: float | None = None
        affinity = NodeAffinitySchedulingStrategy(placement[0][0], soft=False)
        self._actor: Any = WorkerGroupActor.options(scheduling_strategy=affinity).remote(
            name, placement, recipe, device, cpus_per_rank
        )

    def start(self, timeout: float) -> Any:
        """Reference to the answer of a start."""
        return self._actor.start.remote(timeout)

    def fold(self, complex: Complex, setup: FoldShape, ahead: Any = None) -> Any:
        """Reference to the answer of a fold; `ahead` is what `prefetch_features` gave for it, if
        anything.
        """
        return self._actor.fold.remote(complex, setup, [] if ahead is None else [ahead])

    def kill(self) -> None:
        """Kill the actor and with it the ranks, whatever they wait for. Does not wait for Ray."""
        self.stopped = time.monotonic()
        ray.kill(self._actor)

    def stop(self) -> None:
        """Kill the actor and its ranks, and free their GPUs."""
        self.kill()
        self._remove()

    def is_gone(self) -> bool:
        """Whether the GPUs of a stopped group are free."""
        assert self.stopped is not None
        return not self._remove() and time.monotonic() - self.stopped > FREE_SECONDS

    def _remove(self) -> bool:
        """Ask for the end of the placement group; whether there still was one. The actor may have
        made it just before it was killed, so that this is asked again.
        """
        tables = ask_gcs(lambda: placement_group_table()).values()
        if not any(table["name"] == self.name and table["state"] != "REMOVED" for table in tables):
            return False
        ask_gcs(lambda: remove_placement_group(ray.util.get_placement_group(self.name)))
        return True
