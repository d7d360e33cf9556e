"""Settings of a training run. Defaults are those of Boltz-2's structure stage where it has them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from foldcp.checkpoint.identity import is_untrained
from foldcp.config import OPTIONS, TINY, Architecture
from foldcp.training.loop.graphed_step import check_can_capture
from foldcp.training.settings import TrainingSettings

TrainingPrecision = Literal["fp32", "tf32", "bf16"]

# Widths that checkpoints do not state, as all of Boltz-2's have them in common.
UNSTATED = tuple(each.name for each in fields(Architecture) if each.name not in OPTIONS)
_BOLTZ2 = Architecture()
SIZES = {
    "boltz2": _BOLTZ2,
    "tiny": replace(TINY, **{name: getattr(_BOLTZ2, name) for name in UNSTATED}),
}


def _setting(help: str, minimum: float | None = None) -> dict[str, Any]:
    """Metadata of a setting; `minimum` is the smallest value that is accepted."""
    return {"help": help, "minimum": minimum}


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Which network is trained, and which part of it."""

    init: str = field(
        default="",
        metadata=_setting(
            "weights to begin with: a checkpoint to fine-tune, `untrained:boltz2`, "
            "`untrained:tiny`, or nothing for a new network of the sizes of `model.architecture`"
        ),
    )
    architecture: Architecture = field(default_factory=Architecture)
    train: tuple[str, ...] = field(
        default=("*",),
        metadata=_setting("patterns of the names of parameters that are trained, such as `*.z_*`"),
    )
    freeze: tuple[str, ...] = field(
        default=(),
        metadata=_setting("patterns of the names of parameters, among those, that are not"),
    )


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """AdamW, the learning rate of AlphaFold 3, and the average of the weights."""

    max_rate: float = field(
        default=1.8e-3, metadata=_setting("the learning rate after the warm-up", minimum=0.0)
    )
    base_rate: float = field(
        default=0.0, metadata=_setting("the learning rate of the first step", minimum=0.0)
    )
    warmup_steps: int = field(
        default=1000, metadata=_setting("steps in which the rate rises", minimum=0)
    )
    decay_after: int = field(
        default=50_000, metadata=_setting("steps before the rate falls", minimum=1)
    )
    decay_every: int = field(
        default=50_000, metadata=_setting("steps between two falls of the rate", minimum=1)
    )
    decay_factor: float = field(
        default=0.95, metadata=_setting("what the rate is multiplied with then", minimum=0.0)
    )
    beta1: float = field(default=0.9, metadata=_setting("decay of the mean gradient", minimum=0.0))
    beta2: float = field(default=0.95, metadata=_setting("decay of its square", minimum=0.0))
    epsilon: float = field(default=1e-8, metadata=_setting("added to its root", minimum=0.0))
    weight_decay: float = field(
        default=0.003,
        metadata=_setting(
            "weight decay; norms, relative positions, bonds, embeddings of atoms and distances, "
            "and the initial representations have none",
            minimum=0.0,
        ),
    )
    clip: float = field(
        default=10.0,
        metadata=_setting(
            "the largest norm of a gradient, which is scaled down to it; 0: none",
            minimum=0.0,
        ),
    )
    ema: float = field(default=0.999, metadata=_setting("decay of the average of the weights"))

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class CheckpointSettings:
    """When checkpoints are written."""

    every: int = field(default=1000, metadata=_setting("steps between checkpoints", minimum=1))
    keep: int = field(default=3, metadata=_setting("checkpoints that are kept", minimum=1))


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is reported."""

    every: int = field(
        default=10, metadata=_setting("steps between lines on the terminal", minimum=1)
    )
    tensorboard: bool = field(
        default=True, metadata=_setting("write TensorBoard's files, where it is installed")
    )


@dataclass(frozen=True, slots=True)
class ValidationSettings:
    """Structures that are sampled and compared with experiment while training."""

    every: int = field(
        default=0, metadata=_setting("steps between validations; 0: none", minimum=0)
    )
    examples: int = field(
        default=8, metadata=_setting("held-out examples; 0: all there are", minimum=0)
    )
    training_examples: int = field(
        default=0, metadata=_setting("examples of the training set, for comparison", minimum=0)
    )
    max_tokens: int = field(
        default=512, metadata=_setting("larger examples are left out; 0: none", minimum=0)
    )
    recycling: int = field(default=3, metadata=_setting("recycling steps", minimum=0))
    sampling_steps: int = field(default=200, metadata=_setting("steps of the sampler", minimum=1))


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Every setting of a training run but those of its data."""

    model: ModelSettings = field(default_factory=ModelSettings)
    step: TrainingSettings = field(default_factory=TrainingSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    log: LogSettings = field(default_factory=LogSettings)
    precision: TrainingPrecision = field(
        default="fp32",
        metadata=_setting(
            "fp32; tf32 on GPUs that have it; bf16 for matrix products over pairs of tokens, with "
            "fp32 weights beside them, and tf32 elsewhere"
        ),
    )
    cuda_graphs: bool = field(
        default=False,
        metadata=_setting(
            "capture the steps of each size of example as a CUDA graph: for small networks and "
            "crops, whose time goes into launching kernels; without confidence and dropout"
        ),
    )
    examples_per_step: int = field(
        default=128,
        metadata=_setting(
            "examples whose gradients are averaged; a multiple of the number of context groups",
            minimum=1,
        ),
    )
    max_steps: int = field(
        default=100_000, metadata=_setting("steps after which training ends", minimum=0)
    )
    context_parallel: int = field(
        default=1, metadata=_setting("GPUs that share an example", minimum=1)
    )
    seed: int = field(
        default=0, metadata=_setting("seed of examples, noise and new weights", minimum=0)
    )

    def check(self) -> None:
        """Raise ValueError for settings that contradict each other, naming them."""
        architecture = self.model.architecture
        if is_untrained(self.model.init):
            untrained_size(self.model.init)
            if architecture != Architecture():
                raise ValueError(
                    f"model.architecture: the sizes are those of model.init ({self.model.init})"
                )
        for name in UNSTATED:
            if getattr(architecture, name) != getattr(_BOLTZ2, name):
                raise ValueError(
                    f"model.architecture.{name}: must be {getattr(_BOLTZ2, name)}, as Boltz's "
                    "checkpoints do not state it"
                )
        if self.cuda_graphs:
            check_can_capture(self.step)
            if self.context_parallel > 1:
                raise ValueError("cuda_graphs: needs context_parallel=1")
            if self.precision == "bf16":
                raise ValueError("cuda_graphs: needs precision fp32 or tf32")
        optimizer = self.optimizer
        if optimizer.warmup_steps > optimizer.decay_after:
            raise ValueError("optimizer.warmup_steps: more than optimizer.decay_after")


def untrained_size(name: str) -> Architecture:
    """The architecture of a new network of a named size; ValueError for another name."""
    size = name.partition(":")[2]
    if size not in SIZES:
        known = ", ".join(f"untrained:{size}" for size in SIZES)
        raise ValueError(
            f"model.init: unknown network {name!r}; expected one of {known}, or a file"
        )
    return SIZES[size]


def checkpoint_folder(out: Path) -> Path:
    """The folder of the checkpoints of a training run."""
    return out / "checkpoints"
