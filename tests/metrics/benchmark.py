"""Time of the scores of a large complex on one core, from given logits:

    JAXTYPING_DISABLE=1 python -m tests.metrics.benchmark [tokens] [chains]

prints the CPU seconds of each step (one thread). The chains are globules of alanine that overlap a
little; PAE and PDE logits are random, made once, used for every chunk of rows, and not timed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.metrics.geometry.geometry import geometry
from foldcp.metrics.scorer import SampleScorer
from tests.support.metrics_reference import Case, coords_of, features_of, synthetic_layout

RESIDUE_VOLUME = 135.0  # Å³
CHUNK = 64  # rows
T = TypeVar("T")


def globules(num_tokens: int, num_chains: int) -> Case:
    """Chains whose residues fill balls on a cubic lattice, which overlap by a few Å."""
    rng = np.random.default_rng(0)
    length = num_tokens // num_chains
    layout = synthetic_layout([("protein", length)] * num_chains)
    radius = (length * RESIDUE_VOLUME * 3 / (4 * np.pi)) ** (1 / 3)
    edge = int(np.ceil(num_chains ** (1 / 3)))
    lattice = np.stack(np.unravel_index(np.arange(num_chains), (edge, edge, edge)), 1)
    centers = (1.85 * radius * lattice)[layout.token_chain]
    direction = rng.normal(size=centers.shape)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    residues = centers + direction * radius * rng.uniform(size=(len(centers), 1)) ** (1 / 3)
    first = np.searchsorted(layout.atom_token, np.arange(len(centers)))
    atoms = residues[layout.atom_token] + rng.normal(0, 1.2, (len(layout.atom_token), 3))
    nothing = np.zeros(0)
    return Case(
        layout=layout,
        frame_atoms=first[:, None] + np.array([0, 1, 2]),
        rep_atom=first + 3,
        coords=atoms,
        pae_logits=nothing,
        pde_logits=nothing,
        contact_probability=nothing,
        plddt=rng.uniform(size=len(centers)),
    )


def timed(name: str, seconds: dict[str, float], function: Callable[[], T]) -> T:
    started = time.process_time()
    result = function()
    seconds[name] = seconds.get(name, 0.0) + time.process_time() - started
    return result


def main(num_tokens: int = 8000, num_chains: int = 40) -> None:
    torch.set_num_threads(1)
    case = globules(num_tokens, num_chains)
    N = len(case.rep_atom)
    features = features_of(case, N)
    coords = coords_of(case)
    generator = torch.Generator().manual_seed(0)
    pae, pde = 2 * torch.randn(2, CHUNK, N, 64, generator=generator)
    contact = torch.rand(CHUNK, N, generator=generator) ** 8
    seconds: dict[str, float] = {}
    shape = timed("geometry", seconds, lambda: geometry(features, coords))
    scorer = timed(
        "begin", seconds, lambda: SampleScorer(features, coords, ContextParallel(), shape)
    )
    for start in range(0, N, CHUNK):
        rows = min(CHUNK, N - start)
        logits = (pae[:rows], pde[:rows], contact[:rows])
        timed("update", seconds, lambda start=start, logits=logits: scorer.update(start, *logits))
    plddt = torch.from_numpy(case.plddt).float()
    timed("compute", seconds, lambda: scorer.compute(plddt))
    for name, value in seconds.items():
        print(f"{name:10}{value:8.1f} s")
    print(f"{'all':10}{sum(seconds.values()):8.1f} s for {N} tokens in {num_chains} chains")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
