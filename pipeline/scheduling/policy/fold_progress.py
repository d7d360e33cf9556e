"""Progress of a fold: what its next step may take, and how much of it is left.

The cost model's seconds of each stage are spread over its steps; what the fold has taken so far
corrects them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape
from foldcp.pipeline.scheduling.types import FoldStep

# Stages as folds report them -> those of the cost model.
MODEL_STAGES = {
    "features": ("features",),
    "trunk": ("templates", "msa", "trunk"),
    "sampling": ("diffusion",),
    "confidence": ("confidence",),
}
# Share of a fold that must be done before its own speed counts as much as that of the others.
PRIOR_SHARE = 0.005


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Predicted seconds of the stages and steps of one fold."""

    stages: dict[str, float]  # as folds report them, in order
    num_passes: int  # through the trunk, of all complexes of a batch
    msa_blocks: int  # of a pass; its other blocks are the pairformer's
    blocks: int  # of a pass, of both
    templates: float  # seconds of a pass before its first block
    msa_block: float  # seconds
    steps: int  # of the sampler, for all samples
    samples: int  # of all complexes, on the rank that has most
    confidence_blocks: int  # of a sample

    @classmethod
    def predicted(cls, costs: CostModel, task: Task, shape: FoldShape) -> StepTimes:
        """By the cost model, for a whole fold."""
        seconds = costs.stages(task, shape)
        net = costs.architecture
        num_passes = shape.batch * (costs.config.model.recycling + 1)
        return cls(
            {stage: sum(seconds[name] for name in names) for stage, names in MODEL_STAGES.items()},
            num_passes,
            net.msa_blocks,
            net.msa_blocks + net.pairformer_blocks,
            seconds["templates"] / num_passes,
            seconds["msa"] / (num_passes * net.msa_blocks),
            costs.config.model.steps,
            shape.batch * costs.sample_sharding(task.num_tokens, shape).samples_per_rank,
            net.confidence_blocks,
        )

    @property
    def seconds(self) -> float:
        """Of the whole fold."""
        return sum(self.stages.values())

    @property
    def pass_seconds(self) -> float:
        """Of one pass through the trunk."""
        return self.stages["trunk"] / self.num_passes

    @property
    def _block(self) -> float:
        """Seconds of a block of the pairformer."""
        others = self.pass_seconds - self.templates - self.msa_blocks * self.msa_block
        return others / (self.blocks - self.msa_blocks)

    def share_left(self, kept_passes: int) -> float:
        """Share of the fold that is left after passes whose state is kept."""
        return 1 - kept_passes * self.pass_seconds / self.seconds

    def num_passes_done(self, step: FoldStep) -> int:
        """Passes through the trunk that were done at a step."""
        if step.stage == "trunk":
            return step.done // self.blocks
        return 0 if step.stage == "features" else self.num_passes

    def longest_gap(self, stage: str) -> float | None:
        """Seconds of the longest step of a stage; None where no forecast exists, as of writing.

        Between two stages, before the first block of a pass and after the last block of a sample
        there is other work, which takes less than a sample's stage or than some blocks.
        """
        if stage == "features":
            return self.stages["features"]
        block = max(self.msa_block, self._block)
        if stage == "trunk":
            return self.stages["features"] + self.templates + block
        if stage == "sampling":
            return 2 * block
        if stage == "confidence":
            return max(2 * block, self.stages["confidence"] / self.samples)
        return None

    def done(self, step: FoldStep) -> float:
        """Seconds of what was done at a step."""
        seconds = 0.0
        for stage, whole in self.stages.items():
            if stage != step.stage:
                seconds += whole
            elif stage == "trunk":
                return seconds + self._done_in_trunk(step.done)
            else:
                return seconds + whole * step.done / max(1, step.total)
        return seconds  # it writes its result

    def _done_in_trunk(self, num_blocks: int) -> float:
        num_passes, within = divmod(num_blocks, self.blocks)
        seconds = num_passes * self.pass_seconds
        if within:
            num_msa = min(within, self.msa_blocks)
            seconds += self.templates + num_msa * self.msa_block + (within - num_msa) * self._block
        return seconds


@dataclass(slots=True)
class FoldTrack:
    """What a group has told of the fold that it makes. Times are seconds on the driver's clock."""

    times: StepTimes
    keeps_passes: bool = False  # whether the state of the trunk is kept
    looked_at: float = 0.0  # when it was last asked whether the fold is slow
    began: float = 0.0  # when the first of its steps through the network was done; 0 before that
    done_then: float = 0.0  # predicted seconds of what was done then
    first_pass: int = 0  # passes that an earlier attempt had made
    last: FoldStep = field(default_factory=lambda: FoldStep("", 0, 0))
    last_at: float = 0.0
    longest: dict[str, float] = field(default_factory=dict)  # seconds of a step, by stage

    def update(self, step: FoldStep, now: float) -> bool:
        """Take in the last step that is known; whether it is a new one."""
        at = now - step.seconds
        if (step.stage, step.done) == (self.last.stage, self.last.done):
            return False
        if step.stage == self.last.stage:
            num_steps = max(1, step.done - self.last.done)
            gap = (at - self.last_at) / num_steps
            self.longest[step.stage] = max(self.longest.get(step.stage, 0.0), gap)
        if step.stage == "trunk":
            self.first_pass = step.first // self.times.blocks
        if not self.began and step.stage != "features" and step.done > step.first:
            self.began = at
            self.done_then = self.times.done(step)
        self.last = step
        self.last_at = at
        return True

    def slowdown(self, expected: float) -> float:
        """Measured over predicted seconds of this fold.

        At its beginning `expected`, that of other folds.
        """
        if not self.began:
            return expected
        prior = PRIOR_SHARE * self.times.seconds
        done = self.times.done(self.last) - self.done_then
        return (self.last_at - self.began + prior * expected) / (done + prior)

    @property
    def share_known(self) -> float:
        """Share of the fold whose time was measured."""
        if not self.began:
            return 0.0
        return (self.times.done(self.last) - self.done_then) / self.times.seconds

    @property
    def seconds_left(self) -> float:
        """Predicted seconds of what is left after the last step."""
        return self.times.seconds - self.times.done(self.last)

    @property
    def description(self) -> str:
        """The last step in words."""
        return f"{self.last.stage}, step {self.last.done} of {self.last.total}"
