"""Scores against the published formulas, against the published programs, and for any number of
ranks.
"""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.metrics.geometry.geometry import UNKNOWN, geometry
from foldcp.metrics.reductions import tensors_of
from foldcp.metrics.scorer import SampleScorer
from foldcp.metrics.scores import Scores
from tests.metrics.interface.generated_cases import generated_case
from tests.support.distributed import run
from tests.support.metrics_reference import (
    CENTERS,
    Case,
    assert_close,
    coords_of,
    features_of,
    logits_of,
    reference_scores,
    softmax,
    synthetic_case,
)

CASE = synthetic_case()
# tokens, and padded: divides by 1, 2 and 3, and the last of three ranks holds padding
T = 107
N = 126


def score(cp: ContextParallel, case: Case, N: int, chunk: int) -> Scores:
    """The scores of a case whose rows arrive in chunks."""
    scorer, plddt = _filled(cp, case, N, chunk)
    return scorer.compute(plddt)


def new_scorer(case: Case, N: int) -> SampleScorer:
    features = features_of(case, N)
    coords = coords_of(case)
    return SampleScorer(features, coords, ContextParallel(), geometry(features, coords))


def _filled(
    cp: ContextParallel, case: Case, N: int, chunk: int, keep: bool = False
) -> tuple[SampleScorer, torch.Tensor]:
    *pairs, plddt = logits_of(case, N)
    features = features_of(case, N)
    coords = coords_of(case)
    scorer = SampleScorer(
        features, coords, cp, geometry(features, coords), keep_pae=keep, keep_pde=keep
    )
    first = cp.first_row(N)
    for start in range(first, first + N // cp.size, chunk):
        stop = min(start + chunk, first + N // cp.size)
        scorer.update(start, *(x[start:stop] for x in pairs))
    return scorer, plddt


def numbers(scores: Scores) -> dict[str, Any]:
    """The scores without their texts."""
    values = asdict(scores)
    del values["interface"]["interface_residues"]
    return values


def _assert_close(got: Scores, expected: dict[str, Any], rtol: float) -> None:
    assert_close(asdict(got), expected, rtol)


@pytest.fixture(scope="module")
def scores() -> Scores:
    return score(ContextParallel(), CASE, N, 17)


def test_scores_follow_their_formulas(scores: Scores) -> None:
    expected = reference_scores(CASE)
    others = {
        "interface",
        "structure",
        "chain_pdockq2",
    }  # tests/metrics/interface/test_interface.py
    assert set(expected) | others == {field.name for field in fields(Scores)}
    _assert_close(scores, expected, 1e-6)


def test_the_case_has_mixed_masks(scores: Scores) -> None:
    """Assumptions of the other tests: some pairs touch, some frames are invalid, the three d0 of
    ipSAE differ.
    """
    polymers = ~np.isnan(scores.ipsae_d0res)
    assert 0 < polymers.sum() < polymers.size and 0 < (scores.contacts > 0).sum() < 20
    assert (
        len({float(x[0, 4]) for x in (scores.ipsae_d0res, scores.ipsae_d0chn, scores.ipsae_d0dom)})
        == 3
    )
    assert not np.allclose(scores.ipsae_d0res[0, 4], scores.ipsae_d0res[4, 0], rtol=0.1)
    assert len({scores.iptm, scores.ligand_iptm, scores.protein_iptm, scores.ptm}) == 4


def test_ipsae_equals_that_of_the_published_program(scores: Scores) -> None:
    """ipsae.py version 4 (January 2026), cutoffs 10 10, on this case as Boltz writes it: chains A,
    C (DNA) and E, ALA and DA residues, the expected PAE in float32. The row A -> E rests on 27
    residues, the d0res of 1.04.
    """
    program = {
        ("A", "C"): (0.237128, 0.342411, 0.237128),
        ("C", "A"): (0.218011, 0.318745, 0.218011),
        ("A", "E"): (0.076972, 0.423998, 0.323358),
        ("E", "A"): (0.155387, 0.466595, 0.359741),
        ("C", "E"): (0.209178, 0.260188, 0.209178),
        ("E", "C"): (0.291643, 0.356772, 0.291643),
    }
    for (a, b), expected in program.items():
        pair = "ABCDE".index(a), "ABCDE".index(b)
        got = [x[pair] for x in (scores.ipsae_d0res, scores.ipsae_d0chn, scores.ipsae_d0dom)]
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_scores_equal_those_of_boltz(scores: Scores) -> None:
    """boltz 2.2.1 `ConfidenceHeads.forward` on this case: identity matrices as heads, one sample,
    no padding; pair_iptm_boltz[a, b] is its pair_chains_iptm[b][a].
    """
    pairs = [
        [0.516828, 0.685103, 0.409166, 0.491711, 0.404909],
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [0.393854, 0.665316, 0.518832, 0.452291, 0.386623],
        [0.414873, 0.382308, 0.383708, 0.588884, 0.396675],
        [0.430586, 0.684177, 0.440882, 0.533931, 0.527279],
    ]
    program = {
        "ptm": 0.4687988,
        "iptm": 0.4365922,
        "ligand_iptm": 0.5543543,
        "protein_iptm": 0.4305855,
        "complex_plddt": 0.5843752,
        "complex_iplddt": 0.5728585,
        "complex_pde": 13.6059036,
        "complex_ipde": 13.6285038,
    }
    _assert_close(scores, {**program, "pair_iptm_boltz": pairs}, 2e-6)


def test_scores_equal_those_of_alphafold_3(scores: Scores) -> None:
    """AlphaFold 3's `chain_pairwise_predicted_tm_scores` (on E[TM] with its interface d0) and
    `chain_pair_pae`, its numpy functions run on this case.
    """
    nan = np.nan
    iptm = [
        [0.367376, 0.508892, 0.314552, 0.352694, 0.392057],
        [0.508892, nan, 0.038219, 0.013347, 0.445469],
        [0.314552, 0.038219, 0.030286, 0.044999, 0.310626],
        [0.352694, 0.013347, 0.044999, 0.035454, 0.344567],
        [0.392057, 0.445469, 0.310626, 0.344567, 0.326114],
    ]
    off = np.fmax(scores.pair_iptm, scores.pair_iptm.T)
    np.testing.assert_allclose(np.where(np.eye(5), np.diag(scores.chain_ptm), off), iptm, atol=2e-6)
    pae_mean = [[nan, 11.415402, 13.811934, 13.175188, 13.633887], [nan] * 5]
    pae_min = [[nan, 2.51908, 2.404866, 2.4737, 2.438745], [nan] * 5]
    np.testing.assert_allclose(scores.pae_mean[:2], pae_mean, rtol=1e-6)
    np.testing.assert_allclose(scores.pae_min[:2], pae_min, rtol=1e-6)


@pytest.mark.parametrize("size", [2, 3])
def test_scores_do_not_depend_on_the_number_of_ranks(scores: Scores, size: int) -> None:
    results = run(score, size, CASE, N, 11)
    for result in results:
        _assert_close(result, numbers(scores), 1e-6)
    for result in results[1:]:
        assert_close(numbers(result), numbers(results[0]), 0, 0)


def test_scores_with_a_rank_of_padding_alone() -> None:
    case = synthetic_case([("protein", 5), ("rna", 4)])
    for result in run(score, 3, case, 30, 4):
        _assert_close(result, reference_scores(case), 1e-6)


@pytest.mark.parametrize(
    "chains",
    [
        [("protein", 21)],
        [("ligand", 1)],
        [("ligand", 4)],
        [("ligand", 2), ("ligand", 1)],
        [("dna", 3), ("ligand", 3), ("ligand", 1)],
        [("rna", 8), ("dna", 9)],
    ],
    ids=str,
)
def test_scores_of_undefined_cases_are_as_documented(chains: list[tuple[str, int]]) -> None:
    case = synthetic_case(chains)
    num_tokens = sum(length for _, length in chains)
    _assert_close(score(ContextParallel(), case, num_tokens + 1, 5), reference_scores(case), 1e-6)


def test_ipsae_is_zero_without_close_pairs() -> None:
    case = synthetic_case([("protein", 12), ("protein", 9)])
    case.pae_logits[...] = -(((CENTERS - 25) / 2) ** 2)
    result = score(ContextParallel(), case, 21, 21)
    np.testing.assert_array_equal(result.ipsae_d0dom, [[np.nan, 0], [0, np.nan]])
    _assert_close(result, reference_scores(case), 1e-6)


def test_update_takes_logits_of_low_precision(scores: Scores) -> None:
    *pairs, plddt = logits_of(CASE, N)
    rounded = [x.bfloat16() for x in pairs]
    whole = [new_scorer(CASE, N) for _ in range(2)]
    whole[0].update(0, *rounded)
    whole[1].update(0, *(x.float() for x in rounded))
    low, high = (numbers(scorer.compute(plddt)) for scorer in whole)
    assert_close(low, high, 0, 0)


def _on_device(device: str) -> tuple[SampleScorer, torch.Tensor]:
    """A scorer that has all rows, on a device."""
    *pairs, plddt = (x.to(device) for x in logits_of(CASE, N))
    shape = geometry(features_of(CASE, N), coords_of(CASE))
    scorer = SampleScorer(
        features_of(CASE, N, device), coords_of(CASE).to(device), ContextParallel(), shape
    )
    for start in range(0, N, 42):
        scorer.update(start, *(x[start : start + 42] for x in pairs))
    return scorer, plddt


def test_update_never_waits_for_the_device() -> None:
    """On meta tensors, which have no values to wait for."""
    scorer, _ = _on_device("meta")
    assert scorer.pae.device.type == "meta"


class _Operations(TorchDispatchMode):
    """What runs: the operations, and the devices and shapes of the tensors that they make."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(x, torch.Tensor):
                self.made.append((str(func), x.device.type, tuple(x.shape)))
        return result


def test_reduce_neither_waits_for_the_device_nor_moves_anything_to_it() -> None:
    """On meta tensors, which have no values to wait for."""
    scorer, plddt = _on_device("meta")
    with _Operations() as operations:
        reduced, contact_pae = scorer.reduce(plddt)
    assert {device for _, device, _ in operations.made} == {"meta"}
    assert contact_pae is not None
    assert {x.device.type for x in tensors_of((reduced, contact_pae))} == {"meta"}


def test_reduce_runs_the_same_operations_for_all_samples_of_a_complex() -> None:
    """But for those that gather the PAE of contacts: a CUDA graph of it serves all samples."""
    made = []
    for seed in (0, 1):
        case = generated_case(4, "mixed")
        rng = np.random.default_rng(seed)
        coords = case.coords + rng.normal(0, 3, case.coords.shape)
        case = replace(case, coords=coords, pae_logits=rng.normal(0, 3, case.pae_logits.shape))
        size = len(case.rep_atom)
        scorer = SampleScorer(features_of(case, size), coords_of(case), ContextParallel(), UNKNOWN)
        *pairs, plddt = logits_of(case, size)
        scorer.update(0, *pairs)
        with _Operations() as operations:
            scorer.reduce(plddt)
        made.append(operations.made)
    assert made[0] == made[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_scores_on_a_gpu_equal_those_on_the_cpu(scores: Scores) -> None:
    scorer, plddt = _on_device("cuda")
    _assert_close(scorer.compute(plddt), numbers(scores), 2e-6)


def test_pae_and_pde_are_kept_on_request() -> None:
    scorer, plddt = _filled(ContextParallel(), CASE, N, 50, keep=True)
    scorer.compute(plddt)
    for got, logits in ((scorer.pae, CASE.pae_logits), (scorer.pde, CASE.pde_logits)):
        np.testing.assert_allclose(got[:T, :T], softmax(logits) @ CENTERS, rtol=1e-5)
        assert got.shape == (N, N) and not got[T:].any() and not got[:, T:].any()
    scorer, plddt = _filled(ContextParallel(), CASE, N, 50)
    scorer.compute(plddt)
    with pytest.raises(AssertionError, match="keep_pae only"):
        _ = scorer.pae


def test_update_refuses_a_row_twice_and_compute_a_missing_one() -> None:
    *pairs, plddt = logits_of(CASE, N)
    scorer = new_scorer(CASE, N)
    with pytest.raises(AssertionError, match="another rank"):
        scorer.update(N - 4, *(x[:5] for x in pairs))
    scorer.update(0, *(x[:5] for x in pairs))
    with pytest.raises(AssertionError, match="5 of 126"):
        scorer.compute(plddt)


class _Watch(TorchDispatchMode):
    """Counts operations and keeps the largest result."""

    calls = 0
    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls += 1
        if isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.numel())
        return result


def _watched(num_chains: int) -> tuple[_Watch, _Watch]:
    """`update` with 40 rows and `compute`, for chains of three residues."""
    case = synthetic_case([("protein", 3)] * num_chains)
    size = 3 * num_chains
    *pairs, plddt = logits_of(case, size)
    scorer = new_scorer(case, size)
    for start in range(40, size, 40):
        scorer.update(start, *(x[start : start + 40] for x in pairs))
    with _Watch() as updating:
        scorer.update(0, *(x[:40] for x in pairs))
    with _Watch() as computing:
        scorer.compute(plddt)
    return updating, computing


def test_update_and_compute_scale_with_the_number_of_chains() -> None:
    """Nothing larger than the chunk in `update`, than the rows in `compute`; kernels in proportion
    to the chains.
    """
    (few_updating, few_computing) = _watched(32)
    (updating, computing) = _watched(96)
    assert updating.largest <= 40 * 288 * 64
    assert computing.largest <= 288 * 288 * 11  # an array for each term of contacts
    assert updating.calls < 3.2 * few_updating.calls
    assert computing.calls < 3.2 * few_computing.calls
