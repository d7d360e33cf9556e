"""`foldcp.predict.fold` on the random numbers that Boltz drew, with the results of its stages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from torch import Tensor

from foldcp import predict
from foldcp.checkpoint.load import load
from foldcp.checkpoint.precision import Sampling
from foldcp.config import Precision
from foldcp.distributed import sample_parallel
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.model.boltz2 import Boltz2, TrunkOutput
from foldcp.predict import Prediction, Settings, fold
from tests.parity.support.cases import Case
from tests.parity.support.oracle import Oracle, ReplayedNoise
from tests.support.distributed import device_of


@dataclass(frozen=True)
class Run:
    """Ours of a case, whole and without padding: s [1, T, C], z [1, T, T, C], coordinates [M, A,
    3] in Å.
    """

    s: Tensor
    z: Tensor
    coords: Tensor
    prediction: Prediction


def replayed(
    oracle: Oracle,
    case: Case,
    cp: ContextParallel | None = None,
    precision: Precision = "fp32",
    exchange: bool = False,
    kind: str = "cpu",
    sampling: Sampling | None = None,
) -> Run:
    """From the YAML on, on the CPU or on GPUs.

    With `exchange` the scores are those of Boltz's coordinates: a distance that rounding moves over
    the edge of a bin would change them by more than rounding.
    """
    record = oracle.record("prediction", case)
    stages = []
    settings = Settings(
        recycling=case.recycling,
        steps=case.steps,
        samples=case.samples,
        precision=precision,
        keep_pairs=True,
        msa_subsample=case.subsample,
    )
    with _stages(record, stages, exchange):
        device = device_of(cp or ContextParallel(), kind)
        model = load(
            oracle.checkpoint(case.size),
            cp=cp,
            precision=precision,
            sampling=sampling,
            device=device,
        )
        prediction = fold(model, oracle.features(case.input), settings)
    ((s, z, coords),) = stages
    T = record["s"].shape[1]
    A = prediction.coords.shape[1]
    return Run(s[:T][None], z[:T, :T][None], coords[:, :A], prediction)


@contextmanager
def _stages(
    record: dict[str, Any], stages: list[tuple[Tensor, Tensor, Tensor]], exchange: bool
) -> Iterator[None]:
    drawn = [chosen.tolist() for chosen in record["msa_rows"]]
    sample = predict.sample

    def listen(model: Boltz2, trunk: TrunkOutput, *args: Any) -> Tensor:
        # z is used up later
        s = trunk.s.float().cpu()
        z = model.cp.all_gather(trunk.z.float()).to("cpu", copy=True)
        coords = sample(model, trunk, *args)
        stages.append((s, z, coords.cpu()))
        return record["sample"]["coords"].to(coords) if exchange else coords

    with (
        patch.object(
            predict,
            "SeededNoise",
            lambda *given: ReplayedNoise(record["sample"], given[3]),
        ),
        patch.object(
            predict, "MsaSubsample", lambda *_: lambda index: drawn[index] if drawn else None
        ),
        patch.object(predict, "sample", listen),
        patch.object(sample_parallel, "MAX_TOKENS", 0),  # the stages are those of all samples
    ):
        yield
