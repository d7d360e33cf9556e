"""Assignment of predicted polymers to those of a reference, of which several may be equal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import networkx as nx
import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from foldcp.pipeline.evaluation.matching.alignment import align
from foldcp.pipeline.evaluation.matching.chain_pair import ChainPair
from foldcp.pipeline.evaluation.measures.dockq import CONTACT, Contacts, score_interface
from foldcp.pipeline.evaluation.measures.superposition import superposition
from foldcp.pipeline.evaluation.structures.chain import Chain

MAX_EXHAUSTIVE = 5_040  # assignments, all of which are scored; of more, those of superpositions
MAX_INTERFACES = 20_000  # times the assignments, likewise
NUM_POINTS = 32  # atoms of a chain by which superpositions are compared
NUM_SEEDS = 200  # pairs of chains that superpositions begin with
NUM_ROUNDS = 5  # of superposing all assigned chains again
NUM_SCORED = 8  # best assignments of superpositions whose interfaces are scored
FAR = 10.0  # Å, the deviation of a chain that counts half
SIMILAR = 0.02  # of identity: chains that are less alike than the best ones are not equal to them
Assignment = tuple[tuple[int, int], ...]  # (predicted chain, chain of the reference), by the first
Group = tuple[tuple[int, ...], tuple[int, ...]]  # predicted chains, and those they may be


@dataclass(frozen=True, eq=False)
class Matching:
    """The pairs of chains that may belong together, by their positions."""

    pairs: Mapping[tuple[int, int], ChainPair]
    contacts: Contacts
    _dockq: dict[tuple[tuple[int, int], tuple[int, int]], float] = field(default_factory=dict)

    @staticmethod
    def of(
        model: Sequence[Chain],
        reference: Sequence[Chain],
        min_identity: float,
        contacts: Contacts,
    ) -> Matching:
        """The pairs of polymers with an identity of at least `min_identity` over aligned residues,
        and about as high as the best of either chain.
        """
        found = {}
        for i, chain in enumerate(model):
            for j, other in enumerate(reference):
                alignment = align(chain, other)
                if alignment is not None and alignment.identity >= min_identity:
                    pair = ChainPair(chain, other, alignment)
                    if pair.is_trace.any():
                        found[i, j] = pair
        best: dict[tuple[str, int], float] = {}
        for (i, j), pair in found.items():
            for end in (("model", i), ("reference", j)):
                best[end] = max(best.get(end, 0.0), pair.alignment.identity)
        return Matching(
            {
                (i, j): pair
                for (i, j), pair in found.items()
                if pair.alignment.identity >= min(best["model", i], best["reference", j]) - SIMILAR
            },
            contacts,
        )

    def assign(self) -> Assignment:
        """The assignment with the largest sum of DockQ over the interfaces of the reference.

        Of all assignments where they are few. Else of those that follow from superposing one pair
        of chains after the other, refined by superposing all.
        """
        groups = self._groups()
        candidates = list(self._candidates(groups))
        if len(candidates) == 1:
            return candidates[0]
        return max(candidates, key=self._total_dockq)

    def _groups(self) -> list[Group]:
        """Sets of equal chains."""
        graph = nx.Graph()
        graph.add_edges_from((("model", i), ("reference", j)) for i, j in self.pairs)
        groups = []
        for component in nx.connected_components(graph):
            sides = [
                tuple(sorted(number for side, number in component if side == name))
                for name in ("model", "reference")
            ]
            groups.append((sides[0], sides[1]))
        return groups

    def _candidates(self, groups: Sequence[Group]) -> Iterator[Assignment]:
        sizes = [sorted(map(len, group)) for group in groups]
        num_assignments = math.prod(math.perm(larger, smaller) for smaller, larger in sizes)
        num_chains = sum(len(model) for model, _ in groups)
        if num_assignments <= MAX_EXHAUSTIVE and num_assignments * num_chains <= MAX_INTERFACES:
            choices = [list(self._all_of(group)) for group in groups]
            for parts in itertools.product(*choices):
                yield tuple(sorted(itertools.chain.from_iterable(parts)))
        else:
            yield from _Superpositions(self.pairs, groups).best()

    def _all_of(self, group: Group) -> Iterator[Assignment]:
        """All assignments of a group that pair as many chains as can be."""
        model, reference = group
        if len(model) <= len(reference):
            found = [
                tuple(zip(model, chosen, strict=True))
                for chosen in itertools.permutations(reference, len(model))
            ]
        else:
            found = [
                tuple(zip(chosen, reference, strict=True))
                for chosen in itertools.permutations(model, len(reference))
            ]
        possible = [tuple(pair for pair in pairs if pair in self.pairs) for pairs in found]
        most = max(map(len, possible))
        yield from dict.fromkeys(pairs for pairs in possible if len(pairs) == most)

    def _total_dockq(self, assignment: Assignment) -> float:
        by_reference = {j: (i, j) for i, j in assignment}
        return sum(
            self._dockq_of(by_reference[j], by_reference[k])
            for j, k in self._touching
            if j in by_reference and k in by_reference
        )

    @cached_property
    def _touching(self) -> list[tuple[int, int]]:
        """Chains of the reference that touch."""
        chains = {j: pair.reference for (_, j), pair in self.pairs.items()}
        return [
            (j, k)
            for j, k in itertools.combinations(sorted(chains), 2)
            if len(self.contacts.reference.find(chains[j], chains[k], CONTACT))
        ]

    def _dockq_of(self, first: tuple[int, int], second: tuple[int, int]) -> float:
        if (first, second) not in self._dockq:
            scores = score_interface(self.pairs[first], self.pairs[second], self.contacts)
            dockq = 0.0 if scores is None else float(np.nan_to_num(scores.dockq))
            self._dockq[first, second] = dockq
        return self._dockq[first, second]


class _Superpositions:
    """Assignments that follow from superposing one pair of chains, each chain going to the nearest
    that it may be.
    """

    def __init__(self, pairs: Mapping[tuple[int, int], ChainPair], groups: Sequence[Group]) -> None:
        self._pairs = pairs
        self._groups = sorted(groups, key=lambda group: (len(group[1]), group))
        self._points = {ends: _points(pair) for ends, pair in pairs.items()}

    def best(self) -> list[Assignment]:
        """The assignments of the smallest deviations, the best first."""
        closeness: dict[Assignment, float] = {}
        for seed in self._seeds():
            chosen: Assignment = (seed,)
            for _ in range(NUM_ROUNDS):
                found, sum_of_all = self._nearest(chosen)
                if closeness.get(found, -1.0) >= sum_of_all:
                    break
                closeness[found] = sum_of_all
                chosen = found
        return sorted(closeness, key=lambda found: -closeness[found])[:NUM_SCORED]

    def _seeds(self) -> list[tuple[int, int]]:
        """Pairs of chains, those of the chains with the fewest copies first."""
        seeds = []
        num_rounds = max(len(model) for model, _ in self._groups)
        for number in range(num_rounds):
            for model, reference in self._groups:
                if number < len(model):
                    seeds += [(model[number], j) for j in reference]
        return [seed for seed in seeds if seed in self._pairs][:NUM_SEEDS]

    def _nearest(self, chosen: Assignment) -> tuple[Assignment, float]:
        """The assignment of all chains after the superposition of some, and how close it is."""
        moving = np.concatenate([self._points[ends][1] for ends in chosen])
        target = np.concatenate([self._points[ends][0] for ends in chosen])
        rotation, translation = superposition(moving, target)
        found: list[tuple[int, int]] = []
        total = 0.0
        for group, points, others, is_possible in self._stacked:
            deviation = points - (others @ rotation + translation)
            squared = np.square(deviation).sum(axis=-1).mean(axis=-1)
            closeness = np.where(is_possible, 1 / (1 + squared / FAR**2), 0.0)
            rows, columns = linear_sum_assignment(closeness, maximize=True)
            for row, column in zip(rows, columns, strict=True):
                if is_possible[row, column]:
                    found.append((group[0][row], group[1][column]))
                    total += float(closeness[row, column])
        return tuple(sorted(found)), total

    @cached_property
    def _stacked(self) -> list[tuple[Group, np.ndarray, np.ndarray, np.ndarray]]:
        """Of each group: points of its predicted chains and of those of the reference, by pair
        [n, m, P, 3], and which pairs are possible [n, m].
        """
        nothing = np.zeros((NUM_POINTS, 3))
        stacked = []
        for model, reference in self._groups:
            sides = [
                np.array(
                    [
                        [self._points.get((i, j), (nothing, nothing))[side] for j in reference]
                        for i in model
                    ]
                )
                for side in (0, 1)
            ]
            is_possible = np.array([[(i, j) in self._pairs for j in reference] for i in model])
            stacked.append(((model, reference), sides[0], sides[1], is_possible))
        return stacked


def _points(pair: ChainPair) -> tuple[Float[np.ndarray, "P 3"], Float[np.ndarray, "P 3"]]:
    """Common atoms evenly along a chain, as predicted and in the reference."""
    trace = np.flatnonzero(pair.is_trace)
    chosen = trace[np.linspace(0, len(trace) - 1, NUM_POINTS).round().astype(int)]
    return pair.model_coords[chosen], pair.reference_coords[chosen]
