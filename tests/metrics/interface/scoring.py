"""Scores of a case, from its logits."""

from __future__ import annotations

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.metrics.geometry.geometry import geometry
from foldcp.metrics.interface.scores import PAE_CUTOFFS
from foldcp.metrics.scorer import SampleScorer
from foldcp.metrics.scores import Scores
from tests.support.metrics_reference import Case, coords_of, features_of, logits_of


def score(cp: ContextParallel, case: Case, N: int, chunk: int) -> Scores:
    """The scores of a case at every cutoff, whose rows arrive in chunks."""
    *pairs, plddt = logits_of(case, N)
    features = features_of(case, N)
    coords = coords_of(case)
    shape = geometry(features, coords)
    scorer = SampleScorer(features, coords, cp, shape, pae_cutoffs=PAE_CUTOFFS)
    first = cp.first_row(N)
    last = first + N // cp.size
    for start in range(first, last, chunk):
        scorer.update(start, *(x[start : min(start + chunk, last)] for x in pairs))
    return scorer.compute(plddt)
