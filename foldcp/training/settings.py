"""Settings of training: weights of the losses, dropout, noise, and how memory is saved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

# What is kept of a block of layers for its gradient: everything; its inputs alone, so that the
# block is computed again; or these in host memory.
Checkpointing = Literal["none", "blocks", "offload"]


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the losses in their sum. Source: Boltz-2's training (`training_args`)."""

    diffusion: float = 4.0
    distogram: float = 0.03
    bfactor: float = 0.001
    confidence: float = 1e-4
    pae: float = 1.0  # within the confidence loss (Boltz: alpha_pae)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise ValueError(f"the weight of {name} must be 0 or more, not {value}")

    @property
    def train_structure(self) -> bool:
        """Whether a loss reaches the trunk or the diffusion module, which else are frozen."""
        return self.diffusion > 0 or self.distogram > 0 or self.bfactor > 0

    @property
    def train_confidence(self) -> bool:
        return self.confidence > 0


# The two stages of Boltz-2's training: structure, then confidence with a frozen trunk.
STRUCTURE_STAGE = LossWeights()
CONFIDENCE_STAGE = LossWeights(diffusion=0.0, distogram=0.0, bfactor=0.0, confidence=3e-3)


@dataclass(frozen=True, kw_only=True)
class DiffusionLossSettings:
    """Constants of the diffusion loss. Source: AlphaFold 3, section 3.7.1; Boltz-2."""

    nucleic_acid_weight: float = 5.0  # of an atom, in addition to 1
    ligand_weight: float = 10.0
    smooth_lddt: bool = True
    noise_mean: float = -1.2  # of the logarithm of sigma / sigma_data
    noise_std: float = 1.5
    cutoff: float = 15.0  # Å, of smooth lDDT
    nucleic_acid_cutoff: float = 30.0


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of a training step; the defaults are those of Boltz-2's structure stage. Raises
    ValueError naming a number that is out of range.
    """

    weights: LossWeights = STRUCTURE_STAGE
    diffusion: DiffusionLossSettings = field(default_factory=DiffusionLossSettings)
    recycling: int = 3  # the most passes after the first; a step draws how many
    random_recycling: bool = True
    multiplicity: int = 16  # noisy structures of an example
    samples: int = 1  # predicted structures, for the confidence
    sampling_steps: int = 20
    pair_dropout: float = 0.25
    msa_dropout: float = 0.15
    msa_subsample: int = 0  # MSA rows drawn for each pass; 0 uses all
    checkpointing: Checkpointing = "blocks"

    def __post_init__(self) -> None:
        for name in ("multiplicity", "samples", "sampling_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("recycling", "msa_subsample"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        for name in ("pair_dropout", "msa_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")
