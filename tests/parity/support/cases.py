"""Cases of the comparison: inputs, networks and settings. Read by Boltz's side and by ours; imports
neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
OWN = HERE / "inputs"
SHARED = (
    HERE.parents[2] / "shared" / "data" / "complexes"
)  # deep alignments; not everybody has them
STRUCTURES = HERE.parents[2] / "shared" / "data" / "structures"


@dataclass(frozen=True)
class Input:
    """A Boltz YAML, and what is not written in it."""

    path: Path
    method: str = ""
    mended: bool = False  # Boltz's three faults in the building of alignments corrected


INPUTS = {
    "two_proteins": Input(OWN / "two_proteins.yaml"),
    "long": Input(
        OWN / "long.yaml"
    ),  # more residues, and more copies, than relative positions tell apart
    "copies": Input(OWN / "copies.yaml"),
    "nucleic": Input(OWN / "molecules" / "nucleic.yaml"),
    "ligands": Input(OWN / "molecules" / "ligands.yaml"),
    "modified": Input(OWN / "molecules" / "modified.yaml"),
    "bonds": Input(OWN / "bonds.yaml"),
    "constraints": Input(OWN / "constraints.yaml"),
    "steered": Input(OWN / "steered.yaml"),
    "templates": Input(OWN / "templates.yaml"),
    "method": Input(OWN / "molecules" / "nucleic.yaml", method="electron microscopy"),
    "alignments": Input(OWN / "alignments.yaml"),
    "alignments, mended": Input(OWN / "alignments.yaml", mended=True),
    # keys that are organisms, each with several rows of a chain
    "taxa": Input(OWN / "taxa.yaml"),
    "taxa, mended": Input(OWN / "taxa.yaml", mended=True),
    "assembly": Input(OWN / "assembly.yaml"),
    "3g5o": Input(SHARED / "3g5o" / "input.yaml"),
    "3g5o, mended": Input(SHARED / "3g5o" / "input.yaml", mended=True),
    "7yds": Input(SHARED / "7yds" / "input.yaml"),
}


@dataclass(frozen=True)
class Case:
    """One prediction by a network of random weights."""

    input: str
    size: str  # of the network, see reference/make_checkpoint.py
    recycling: int = 1
    steps: int = 10
    samples: int = 1
    subsample: int = 0  # rows of the alignment that each pass draws; 0 takes all
    ranks: tuple[int, ...] = (1, 2, 3)
    modules: bool = False  # compare module by module, too

    @property
    def name(self) -> str:
        subsampled = f", {self.subsample} rows drawn" if self.subsample else ""
        return f"{self.input}, {self.size}, {self.recycling} recycles{subsampled}"


CASES = {
    case.name: case
    for case in (
        Case("two_proteins", "tiny", recycling=0, samples=2, ranks=(1, 2, 3, 4)),
        Case("assembly", "tiny", recycling=3, samples=2, ranks=(1, 2, 3, 4, 8), modules=True),
        Case("assembly", "tiny", recycling=3, subsample=12),
        Case("long", "tiny"),
        Case("ligands", "tiny"),
        Case("modified", "tiny"),
        Case("bonds", "tiny"),
        Case("constraints", "tiny"),
        Case("copies", "tiny"),
        Case("templates", "tiny", recycling=0, modules=True),
        Case("assembly", "real", recycling=0, modules=True),
        Case("assembly", "real", recycling=3, samples=2),
    )
}
STEERED = {
    case.name: case
    for case in (
        Case("steered", "tiny", recycling=0, steps=10, samples=2),
        Case("two_proteins", "tiny", recycling=0, steps=10),
    )
}
NOISE_LEVELS = (1.0, 20.0, 1500.0)  # Å, where the score network is asked on its own
GRADIENTS = ("assembly, tiny, 3 recycles",)  # of the modules of its network, for its complex
PRECISION = ("assembly, real, 3 recycles", "assembly, tiny, 3 recycles")


@dataclass(frozen=True)
class TrainingCase:
    """One step of training by a network of random weights, on a structure that is made up."""

    input: str
    size: str = "tiny"
    recycling: int = 1
    dropout: float = 0.25  # of pairs; that of sequences is 0.6 of it
    multiplicity: int = 3
    samples: int = 1
    steps: int = 3  # of the sampler
    ranks: tuple[int, ...] = (1, 2, 3)
    # More where a true error of PAE is so near the edge of a bin that rounding moves it: then the
    # losses differ by 2e-6, and the gradients of the PAE's logits by 1e-3.
    allowed_gradient: float = 1e-4

    @property
    def name(self) -> str:
        return f"training on {self.input}, {self.recycling} recycles, {self.samples} samples"


TRAINING = {
    case.name: case
    for case in (
        TrainingCase("assembly", recycling=2, samples=2),
        TrainingCase("ligands", recycling=0, dropout=0.0, allowed_gradient=5e-3),
    )
}


@dataclass(frozen=True)
class LossCase:
    """Losses on random outputs: of an input with a structure that is made up, or of the first
    residues of the chains of an experimental structure.
    """

    name: str
    code: str = ""
    multiplicity: int = 3

    @property
    def structure(self) -> Path:
        return STRUCTURES / f"{self.code}.cif.gz"

    @property
    def exists(self) -> bool:
        return not self.code or self.structure.exists()


LOSSES = {
    case.name: case
    for case in (
        LossCase("assembly"),
        LossCase("copies"),
        LossCase("1lcd, protein and DNA", code="1lcd"),
        LossCase("1kd8, three copies of two chains", code="1kd8"),
        LossCase("1hvr, homodimer with a ligand", code="1hvr"),
    )
}
