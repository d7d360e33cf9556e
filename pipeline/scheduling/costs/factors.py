"""What a run has learned about the cost model: measured over predicted seconds, by kind of fold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from foldcp.config import Precision

# The stages whose seconds are measured, and the cost model's stages that they consist of.
MEASURED_STAGES = {
    "features": ("features",),
    "trunk": ("templates", "msa", "trunk"),
    "sampling": ("diffusion",),
    "confidence": ("confidence",),
}
CLASSES_PER_DOUBLING = 2  # of the number of tokens

Kind = tuple[int, int, Precision, int]  # size class, ranks, precision, class of the batch


def kind_of(num_tokens: int, num_ranks: int, precision: Precision, batch: int = 1) -> Kind:
    """The kind of a fold; folds of one kind teach each other most."""
    size_class = round(CLASSES_PER_DOUBLING * math.log2(max(1, num_tokens)))
    return (size_class, num_ranks, precision, round(math.log2(batch)))


@dataclass(frozen=True, slots=True)
class Factors:
    """Measured over predicted seconds of each stage, and those of a complex beside its stages.

    Of a kind that has not been measured its size class says most, or else the stage.
    """

    by_kind: dict[tuple[str, Kind], float] = field(default_factory=dict)
    by_size: dict[tuple[str, int], float] = field(default_factory=dict)
    by_stage: dict[str, float] = field(default_factory=dict)
    overhead: float = 0.0

    def of(self, stage: str, kind: Kind) -> float:
        """The factor of a stage."""
        found = self.by_kind.get((stage, kind)) or self.by_size.get((stage, kind[0]))
        return found or self.by_stage.get(stage, 1.0)

    def seconds(self, predicted: Mapping[str, float], kind: Kind, batch: int = 1) -> float:
        """Seconds of a whole fold whose stages are predicted without what has been learned."""
        total = batch * self.overhead
        for stage, parts in MEASURED_STAGES.items():
            total += self.of(stage, kind) * sum(predicted[part] for part in parts)
        return total

    def largest_change(self, other: Factors) -> float:
        """The largest logarithm of a ratio of factors of these and the others."""
        changes = [
            abs(math.log(factor / other.by_stage.get(stage, 1.0)))
            for stage, factor in self.by_stage.items()
        ]
        changes += [
            abs(math.log(factor / other.of(stage, kind)))
            for (stage, kind), factor in self.by_kind.items()
        ]
        return max(changes, default=0.0)
