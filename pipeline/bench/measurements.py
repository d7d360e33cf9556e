"""Measurements of a machine: their types, and what they are measured on. Without torch."""

from __future__ import annotations

from dataclasses import dataclass

from foldcp.complex import Chain, Complex
from foldcp.config import Precision
from foldcp.pipeline.scheduling.hardware import Hardware

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
GROUP_MSA_ROWS = 1024  # at most, of complexes that are folded together


@dataclass(frozen=True, slots=True)
class RooflineLimits:
    """The highest rates of a device in the operations of a fold.

    Those of the slowest of `num_ranks` ranks.
    """

    num_ranks: int
    copy_bytes_per_s: float  # read + write
    flop_per_s: float  # matrix products in bf16
    flop_per_s_fp32: float
    exp_per_s: float  # of the triangle attention kernel
    exp_limit_per_s: float  # of the exponential units (on a CPU: of a plain exponential)
    launch_seconds: float  # from one small kernel to the next
    link_bytes_per_s: float | None  # that a rank receives from the others; None for one rank

    def flops(self, precision: Precision) -> float:
        """Rate of matrix products, 1/s."""
        return self.flop_per_s_fp32 if precision == "fp32" else self.flop_per_s


@dataclass(frozen=True, slots=True)
class BlockTime:
    """One pair block of the released widths."""

    num_tokens: int
    num_ranks: int
    precision: Precision
    seconds: float
    pair_bytes: float  # peak memory of a rank per pair of its rows, z included


@dataclass(frozen=True, slots=True)
class FoldTime:
    """A whole prediction; both dictionaries by stage (trunk, sampling, confidence)."""

    num_tokens: int
    num_ranks: int
    precision: Precision
    seconds: dict[str, float]
    peak_bytes: dict[str, int]  # of the device with the largest peak; of the process on a CPU


@dataclass(frozen=True, slots=True)
class Throughput:
    """Seconds of each of several complexes, on one device: folded one after the other, and together
    (`foldcp.fold_group`).
    """

    num_tokens: int  # of the largest; the smallest has nine tenths of them
    group_size: int
    precision: Precision
    alone_seconds: float
    group_seconds: float
    peak_bytes: int  # of the group


@dataclass(frozen=True, slots=True)
class PeerTime:
    """A whole prediction by another engine, on one device."""

    engine: str
    num_tokens: int
    seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """A measurement that failed, and why."""

    what: str
    reason: str


Measurement = RooflineLimits | BlockTime | FoldTime | Throughput | PeerTime | NotMeasured


@dataclass(frozen=True, slots=True)
class FoldPlan:
    """The prediction that is measured.

    An untrained network on a synthetic complex with a synthetic MSA.
    """

    network: str  # untrained:boltz2 or untrained:tiny
    recycling: int
    steps: int
    samples: int
    msa_rows: int


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that was measured, and the hardware file used for it before."""

    gpu: str  # the device's own name
    num_devices: int
    versions: dict[str, str]
    hardware: Hardware


def synthetic_complex(num_tokens: int) -> Complex:
    """Two protein chains with `num_tokens` residues in all, of all kinds in turn."""
    residues = AMINO_ACIDS * (num_tokens // len(AMINO_ACIDS) + 1)
    first = max(1, num_tokens * 3 // 5)
    chains = (
        Chain("A", "protein", residues[:first]),
        Chain("B", "protein", residues[first:num_tokens]),
    )
    return Complex(f"{num_tokens} tokens", chains)
