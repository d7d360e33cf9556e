"""Folding from Python: load a network, make features, fold one complex or several small ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from foldcp import predict, predict_group
from foldcp.checkpoint.load import load
from foldcp.complex import Complex
from foldcp.config import KernelSetting, Precision
from foldcp.features.features import Features
from foldcp.features.featurize import featurize as make_features
from foldcp.features.msa.chain_msas import Compat, MsaSettings, Pairing
from foldcp.features.steering import NO_CONSTRAINTS, steering_constraints
from foldcp.files import reading
from foldcp.model.boltz2 import Boltz2
from foldcp.pipeline.fetch import find_weights
from foldcp.predict import Prediction, Settings
from foldcp.progress import Progress, no_progress


@dataclass(frozen=True)
class Model:
    """A network in the memory of one device, as `load_model` returns it."""

    network: Boltz2
    checkpoint: str  # the name or path that it was loaded from
    device: torch.device
    precision: Precision


def load_model(
    checkpoint: str | Path,
    *,
    device: torch.device | str | None = None,
    precision: Precision | None = None,
    kernels: KernelSetting = "auto",
) -> Model:
    """Load a network, which may fold any number of complexes.

    Args:
        checkpoint: `boltz2` for the weights that `foldcp fetch boltz2` has downloaded, the path of
            a Boltz-2 structure checkpoint (.ckpt or .safetensors), `demo` for the small network
            that comes with foldcp, or `untrained:tiny` or `untrained:boltz2` for random weights,
            whose scores mean nothing.
        device: "cpu", "cuda" or "cuda:1"; None takes the current GPU, or the CPU without one.
        precision: "fp32"; "mixed" for matrix products over pairs in bf16; "bf16" to keep the pair
            representation in bf16, too; "bf16-int8" to keep what is as large beside it in 8 bits,
            which needs least memory. None is "mixed" on a GPU and "fp32" on a CPU, as in
            `foldcp score`.
        kernels: implementation of the network's operations: "triton", "torch", or "auto" for Triton
            on a GPU and PyTorch elsewhere.

    Raises:
        ValueError: for a file that cannot be read or is not a Boltz-2 structure model, an unknown
            precision, and a device or kernels that this machine does not have.

    >>> import foldcp
    >>> model = foldcp.load_model("untrained:tiny", device="cpu")
    >>> model.precision
    'fp32'
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r}: PyTorch finds no GPU on this machine")
    if precision not in (None, *get_args(Precision)):
        raise ValueError(
            f"unknown precision {precision!r}, expected {', '.join(get_args(Precision))}"
        )
    precision = precision or ("mixed" if device.type == "cuda" else "fp32")
    path = find_weights(str(checkpoint))
    network = load(path, device=device, precision=precision, kernels=kernels)
    return Model(network, path, device, precision)


def featurize(
    complex: Complex,
    *,
    max_msa_rows: int = 8192,
    corrected_msa: bool = False,
    msa_pairing: Pairing = "key",
    cut_msa_to_range: bool = False,
    compat: Compat = "boltz",
    seed: int = 0,
) -> Features:
    """The network's input for one complex, for `fold`: all of it O(N), on the CPU, without padding.

    Equal to what `boltz predict` 2.2.1 computes. To fold a complex once, give it to `fold` itself.

    Args:
        complex: chains with their alignments (`Chain.msa`), templates and constraints. A protein
            without an alignment is folded from its sequence alone; only `foldcp score`, `foldcp
            fold` and `score_database` refuse that. Forced pockets and contacts steer the sampler
            and are not features, so `fold` needs such a complex itself.
        max_msa_rows: rows read of each alignment file; the MSA has up to twice as many, as paired
            rows come first and unpaired ones below.
        corrected_msa: pair alignments without three known faults of Boltz 2.2.1, which its
            published accuracy includes.
        msa_pairing: "key" pairs rows by the keys of CSV files alone, as Boltz does; "taxonomy" also
            by the taxa in the headers of a3m files.
        cut_msa_to_range: take the columns of the chain from an alignment of a longer sequence.
        compat: "boltz" follows the known faults of Boltz 2.2.1; "community" and "corrected" mend
            them as the settings of that name do.
        seed: of the random rotation of each reference conformer.

    Raises:
        ValueError: naming the complex and the value at fault: an unknown component or method, an
            alignment of another chain, a constraint on an atom that does not exist.
        TypeError: for what is no `Complex`.

    >>> import foldcp
    >>> complex = foldcp.Complex("peptide", (foldcp.Chain("A", "protein", "MKTAYIAKQR"),))
    >>> features = foldcp.featurize(complex)
    >>> features.num_tokens, features.msa.shape
    (10, torch.Size([1, 10]))
    """
    if not isinstance(complex, Complex):
        raise TypeError(f"complex: expected a Complex, got {type(complex).__name__}")
    if any(constraint.force for constraint in (*complex.pockets, *complex.contacts)):
        raise ValueError(
            f"complex {complex.name}: has forced pockets or contacts, which are not features; "
            "give the complex itself to fold"
        )
    msa = MsaSettings(
        max_file_rows=max_msa_rows,
        max_paired=max_msa_rows,
        max_rows=2 * max_msa_rows,
        corrected=corrected_msa,
        pairing=msa_pairing,
        cut_to_range=cut_msa_to_range,
        compat=compat,
    )
    return _featurize(complex, msa, seed)


def fold(
    model: Model,
    complex: Complex | Features,
    *,
    samples: int = 1,
    steps: int = 200,
    recycling: int = 3,
    seed: int = 0,
    potentials: bool = False,
    parallel_samples: int = 5,
    msa_subsample: int = 0,
    keep_pairs: bool = False,
    progress: Progress = no_progress,
) -> Prediction:
    """Fold one complex on the model's device. The defaults are those of `boltz predict` 2.2.1.

    Deterministic in the model, the complex and the arguments, but for the rounding of forces on a
    GPU where the sampler is steered. A complex that is too large for one GPU is folded by several
    with `torchrun ... -m foldcp fold` or `foldcp score`.

    Args:
        model: from `load_model`.
        complex: a complex, or its features from `featurize`. Proteins without an alignment are
            folded from their sequence alone.
        samples: structures, each with coordinates and scores of its own.
        steps: of the diffusion sampler.
        recycling: passes through the trunk after the first.
        seed: of the noise, and of the features that are made here.
        potentials: steer sampling towards plausible chemistry with Boltz's physical potentials;
            needs a `Complex`.
        parallel_samples: samples drawn at once, which costs memory and does not change them.
        msa_subsample: MSA rows drawn at random for each pass through the trunk; 0 uses all.
        keep_pairs: also return PAE and PDE of all pairs of tokens.
        progress: called with stage, steps done and steps in all.

    Raises:
        ValueError: for a setting out of range, and as `featurize`.
        TypeError: for a model or a complex that is something else.
        torch.OutOfMemoryError: for a complex that does not fit into the GPU's memory.

    >>> import foldcp
    >>> chains = (foldcp.Chain("A", "protein", "MKTAYIAKQR"), foldcp.Chain("B", "dna", "GATTACA"))
    >>> model = foldcp.load_model("untrained:tiny", device="cpu")
    >>> prediction = foldcp.fold(model, foldcp.Complex("pair", chains), samples=2, steps=2)
    >>> prediction.coords.shape
    (2, 227, 3)
    """
    if not isinstance(model, Model):
        raise TypeError(f"model: expected what load_model returns, got {type(model).__name__}")
    if not isinstance(complex, Complex | Features):
        raise TypeError(f"complex: expected a Complex or Features, got {type(complex).__name__}")
    settings = Settings(
        recycling=recycling,
        steps=steps,
        samples=samples,
        parallel_samples=parallel_samples,
        precision=model.precision,
        msa_subsample=msa_subsample,
        potentials=potentials,
        seed=seed,
        keep_pairs=keep_pairs,
    )
    if isinstance(complex, Complex):
        features = _featurize(complex, MsaSettings(), seed)
        steering = steering_constraints(complex, potentials=potentials)
    elif potentials:
        raise ValueError("potentials need the complex itself, not its features")
    else:
        features = complex
        steering = NO_CONSTRAINTS
    return predict.fold(model.network, features, settings, progress, steering)


def fold_group(
    model: Model,
    complexes: Sequence[Complex | Features],
    *,
    samples: int = 1,
    steps: int = 200,
    recycling: int = 3,
    seed: int = 0,
    parallel_samples: int = 5,
    msa_subsample: int = 0,
    keep_pairs: bool = False,
    progress: Progress = no_progress,
) -> list[Prediction]:
    """Fold small complexes together, in less time than one after the other: their structures are
    sampled at once, trunks and scores run side by side. Up to rounding, each prediction is what
    `fold` gives.

    Up to 512 tokens it pays most; complexes of about as many tokens belong together, as all are
    padded to the largest. Memory holds the pairs and pair biases of all of them.

    Args:
        model: from `load_model`, on one device.
        complexes: as for `fold`; none with forced pockets or contacts.
        samples: structures of each.
        steps: as for `fold`, like the other arguments.
        recycling: passes through the trunk after the first.
        seed: of the noise, and of the features that are made here.
        parallel_samples: samples of each complex drawn at once.
        msa_subsample: MSA rows drawn at random for each pass through the trunk; 0 uses all.
        keep_pairs: also return PAE and PDE of all pairs of tokens.
        progress: called with stage, steps done and steps in all, by one thread at a time.

    Raises:
        ValueError: without a complex, and as `fold`.
        TypeError: for a model or a complex that is something else.
        torch.OutOfMemoryError: for complexes that do not fit into the GPU's memory together.

    >>> import foldcp
    >>> complexes = []
    >>> for sequence in ("MKTAYIAKQR", "GSAGSAAGS"):
    ...     chain = foldcp.Chain("A", "protein", sequence)
    ...     complexes.append(foldcp.Complex("peptide", (chain,)))
    >>> model = foldcp.load_model("untrained:tiny", device="cpu")
    >>> predictions = foldcp.fold_group(model, complexes, steps=2)
    >>> [prediction.plddt.shape for prediction in predictions]
    [(1, 10), (1, 9)]
    """
    if not isinstance(model, Model):
        raise TypeError(f"model: expected what load_model returns, got {type(model).__name__}")
    settings = Settings(
        recycling=recycling,
        steps=steps,
        samples=samples,
        parallel_samples=parallel_samples,
        precision=model.precision,
        msa_subsample=msa_subsample,
        seed=seed,
        keep_pairs=keep_pairs,
    )
    group = [
        each if isinstance(each, Features) else featurize(each, seed=seed) for each in complexes
    ]
    return predict_group.fold_group(model.network, group, settings, progress)


def _featurize(complex: Complex, msa: MsaSettings, seed: int) -> Features:
    with reading(f"complex {complex.name}"):
        return make_features(complex, msa=msa, seed=seed)
