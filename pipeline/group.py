"""A group: one placement group, the ranks in it, one fate. Also how Ray is started and what it says of the nodes.

The group actor makes the placement group and its ranks and speaks for them. When a rank dies, fails or runs out of
memory the others may wait for it for ever, so nothing is repaired: the driver kills the actor, whose ranks die with
it, removes the placement group and makes another one.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from foldcp.complex import Complex
from foldcp.pipeline.cluster import Placement
from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.costs import Setup
from foldcp.pipeline.jobs import Recipe

OBJECT_STORE = 100_000_000  # bytes; Ray wants 80 MB at least and would take a third of the machine
AHEAD_TIMEOUT = 60.0  # seconds; what takes longer is made where it is wanted
GRACE = 2.0  # seconds in which the other ranks may tell the true cause of a failure
FREE_SECONDS = 0.1  # from the end of a placement group to its GPUs being free, as measured
NODE_LABEL = "ray.io/node-id"
HEAVY = ("prediction", "layout")
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster, as Ray sees it."""

    id: str
    host: str
    cpus: int
    gpus: int


def start_ray(address: str, num_cpus: int, verbose: bool) -> None:
    """Join the cluster at `address`, or start one on this machine for this process alone."""
    options: dict[str, Any] = {"log_to_driver": verbose, "logging_level": logging.INFO if verbose else logging.ERROR}
    if address:
        ray.init(address=address, **options)
        return
    ray.init(
        address="local",
        num_cpus=num_cpus,
        object_store_memory=OBJECT_STORE,
        include_dashboard=False,
        **options,
    )


def alive_nodes() -> list[Node]:
    """The machines that answer, in the order of their names."""
    nodes = [
        Node(
            id=node["NodeID"],
            host=node["NodeManagerHostname"],
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(nodes, key=lambda node: (node.host, node.id))


@ray.remote(num_cpus=0, max_retries=0)
def _make_ahead(complex: Complex, config: RunConfig, setup: Setup) -> Any:
    from foldcp.pipeline.rank import inputs_of  # now, as in `join`

    try:
        return inputs_of(complex, config, setup)
    except ValueError:  # told where it is folded
        return None


def make_ahead(complex: Complex, config: RunConfig, setup: Setup) -> Any:
    """Begin to make what a fold starts from, so that no GPU waits for it; the reference to it."""
    return _make_ahead.remote(complex, config, setup)


@ray.remote(max_restarts=0)
class RankActor:
    """A rank as a Ray actor."""

    def __init__(self, recipe: Recipe) -> None:
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
        """See Rank. `visible` lists the GPUs of this node that the group has: all its ranks here see the same list,
        as NCCL trips over ranks that each see only their own."""
        if visible:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible
        from foldcp.pipeline.rank import Rank  # now, as torch may look at the GPUs; the group actor never needs it

        self.rank = Rank(self.recipe)
        return self.rank.join(rank, size, meeting, device)

    def fold(self, complex: Complex, setup: Setup, ahead: Sequence[Any]) -> Answer:
        """See Rank; the prediction goes past the group actor, straight to the driver. `ahead` has the reference to
        what `make_ahead` began, or nothing."""

        def made() -> Any:
            try:
                return ray.get(ahead[0], timeout=AHEAD_TIMEOUT) if ahead else None
            except RayError:  # made here instead, where what is wrong with the input is told
                return None

        answer = self.rank.fold(complex, setup, made=made)
        return {name: ray.put(part) if name in HEAVY else part for name, part in answer.items()}


@ray.remote(num_cpus=0, max_restarts=0)
class GroupActor:
    """Owns a placement group and its ranks. `start` and `fold` answer with an `outcome`."""

    def __init__(self, name: str, placement: Placement, recipe: Recipe, device: str, cpus_per_rank: float) -> None:
        self.name, self.placement, self.recipe = name, placement, recipe
        self.device, self.cpus_per_rank = device, cpus_per_rank
        self.ranks: list[Any] = []

    def start(self, timeout: float) -> Answer:
        """Take the GPUs, start the ranks in the order of their nodes and GPUs, load the network."""
        per_rank = {"CPU": self.cpus_per_rank} | ({"GPU": 1} if self.device == "cuda" else {})
        group = placement_group(
            [{name: amount * count for name, amount in per_rank.items()} for _, count in self.placement],
            strategy="STRICT_PACK" if len(self.placement) == 1 else "STRICT_SPREAD",
            name=self.name,
            bundle_label_selector=[{NODE_LABEL: node} for node, _ in self.placement],
        )
        if not group.wait(timeout):
            state = placement_group_table(group)["stats"]["scheduling_state"]
            return {"outcome": "error", "reason": f"Ray has no room for {self.placement}: {state}"}
        for bundle, (_, count) in enumerate(self.placement):
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
            gpus = int(self.device == "cuda")
            actor = RankActor.options(num_cpus=self.cpus_per_rank, num_gpus=gpus, scheduling_strategy=strategy)
            self.ranks += [actor.remote(self.recipe) for _ in range(count)]
        places = self._ask([rank.where.remote() for rank in self.ranks])
        if isinstance(places, dict):
            return places
        return self._join(places)

    def _join(self, places: list[tuple[str, str]]) -> Answer:
        """Number the ranks by node and GPU, as Ray's order means nothing, and let them meet."""
        node_order = {node: index for index, (node, _) in enumerate(self.placement)}
        order = sorted(range(len(places)), key=lambda i: (node_order[places[i][0]], _natural(places[i][1])))
        self.ranks = [self.ranks[i] for i in order]
        places = [places[i] for i in order]
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
        return answers if isinstance(answers, dict) else {"outcome": "ready", "places": places}

    def fold(self, complex: Complex, setup: Setup, ahead: Sequence[Any]) -> Answer:
        """All ranks fold; the answer is rank 0's, with the largest peak of memory."""
        answers = self._ask([rank.fold.remote(complex, setup, ahead) for rank in self.ranks])
        if isinstance(answers, dict):
            return answers
        bad = [answer for answer in answers if answer["outcome"] != "done"]
        if bad:
            return bad[0]
        return answers[0] | {"peak_bytes": max(answer["peak_bytes"] for answer in answers)}

    def _ask(self, refs: Sequence[Any]) -> list[Any] | Answer:
        """The answers of all ranks, or the failure of one as soon as it is known."""
        rank_of, answers, pending = {ref: rank for rank, ref in enumerate(refs)}, {}, list(refs)
        while pending:
            (done,), pending = ray.wait(pending, num_returns=1)
            answer = hear(done, f"rank {rank_of[done]}")
            if isinstance(answer, dict) and answer["outcome"] in ("oom", "lost", "error"):
                return self._cause(answer, pending, rank_of)
            answers[done] = answer
        return [answers[ref] for ref in refs]

    def _cause(self, first: Answer, pending: list[Any], rank_of: dict[Any, int]) -> Answer:
        """Of what fails at once the cause: a rank that died looks to the others like a broken connection."""
        failures, end = [first], time.monotonic() + GRACE
        while pending and (left := end - time.monotonic()) > 0:
            done, pending = ray.wait(pending, num_returns=1, timeout=left)
            failures += [answer for ref in done if isinstance(answer := hear(ref, f"rank {rank_of[ref]}"), dict)]
        causes = ("oom", "lost", "error")
        return min((f for f in failures if f["outcome"] in causes), key=lambda f: causes.index(f["outcome"]))


def _natural(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdigit() else (0, text)


def hear(ref: Any, who: str) -> Any:
    """What a call came to; a death or an exception becomes an answer too."""
    try:
        answer = ray.get(ref)
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        lines = str(cause).strip().splitlines() or [""]
        return {"outcome": "error", "reason": f"{who}: {type(cause).__name__}: {lines[0]}", "trace": str(error)}
    except RayActorError as error:
        outcome = "oom" if "memory pressure" in str(error) or "low on memory" in str(error) else "lost"
        return {"outcome": outcome, "reason": f"{who} died", "trace": str(error)}
    except RayError as error:
        return {"outcome": "lost", "reason": f"{who}: {type(error).__name__}", "trace": str(error)}
    return answer


def with_heavy(answer: Answer, who: str) -> Answer:
    """An answer with its prediction, which the rank kept; `lost` if the rank died since."""
    parts = {name: hear(answer[name], who) for name in HEAVY}
    lost = next((part for part in parts.values() if isinstance(part, dict)), None)
    return lost or answer | parts


class Group:
    """The driver's handle of a group."""

    def __init__(self, name: str, placement: Placement, recipe: Recipe, device: str, cpus_per_rank: float) -> None:
        self.name = name
        self.stopped: float | None = None
        affinity = NodeAffinitySchedulingStrategy(placement[0][0], soft=False)
        self._actor: Any = GroupActor.options(scheduling_strategy=affinity).remote(
            name, placement, recipe, device, cpus_per_rank
        )

    def start(self, timeout: float) -> Any:
        """Reference to the answer of a start."""
        return self._actor.start.remote(timeout)

    def fold(self, complex: Complex, setup: Setup, ahead: Any = None) -> Any:
        """Reference to the answer of a fold; `ahead` is what `make_ahead` gave for it, if anything."""
        return self._actor.fold.remote(complex, setup, [] if ahead is None else [ahead])

    def stop(self) -> None:
        """Kill the actor and with it the ranks, whatever they wait for."""
        self.stopped = time.monotonic()
        ray.kill(self._actor)
        self._remove()

    def is_gone(self) -> bool:
        """Whether the GPUs of a stopped group are free."""
        assert self.stopped is not None
        return not self._remove() and time.monotonic() - self.stopped > FREE_SECONDS

    def _remove(self) -> bool:
        """Ask for the end of the placement group; whether there still was one. The actor may have made it just before
        it was killed, so that this is asked again."""
        tables = placement_group_table().values()
        if not any(table["name"] == self.name and table["state"] != "REMOVED" for table in tables):
            return False
        remove_placement_group(ray.util.get_placement_group(self.name))
        return True
