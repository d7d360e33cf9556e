"""What the rows of the predicted errors and of the coordinates say about every pair of chains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.features.layout import Layout

BIN_CENTERS = 0.5 * np.arange(64) + 0.25  # Å; PAE and PDE have 64 bins of 0.5 Å
PAE_CUTOFF = 10.0  # Å; ipSAE counts pairs strictly below it
CONTACT_CUTOFF = 8.0  # Å between representative atoms, strictly below

# Temporaries of one step over kept rows hold this many pairs of tokens (4 to 12 bytes each).
_STEP_PAIRS = 1 << 22


@dataclass(frozen=True)
class ChainSpans:
    """The chains as spans of tokens: plain numbers, so cutting a tensor by chain never waits for
    its device.

    Padding lies behind the last span, so what is cut by spans never sees it. T tokens, C chains.
    """

    starts: tuple[int, ...]  # [C + 1]: first token of each chain, then T
    kinds: tuple[str, ...]  # [C] protein, dna, rna or ligand

    @classmethod
    def of(cls, layout: Layout) -> ChainSpans:
        """The spans of a layout, whose tokens stand chain by chain."""
        chain = layout.token_chain
        assert np.all(np.diff(chain) >= 0), "tokens stand chain by chain"
        lengths = np.bincount(chain, minlength=len(layout.chain_kinds))
        assert np.all(lengths > 0), "a chain has tokens"
        return cls(tuple(int(n) for n in np.cumsum([0, *lengths])), tuple(layout.chain_kinds))

    @property
    def num_tokens(self) -> int:
        """T, without padding."""
        return self.starts[-1]

    @property
    def num_chains(self) -> int:
        """C."""
        return len(self.kinds)

    @property
    def lengths(self) -> Int[np.ndarray, " C"]:
        """Tokens of each chain."""
        return np.diff(self.starts)

    @property
    def pair_lengths(self) -> Int[np.ndarray, "C C"]:
        """Tokens of each two chains together; on the diagonal, of the one chain."""
        lengths = self.lengths
        return np.where(np.eye(len(lengths), dtype=bool), lengths, np.add.outer(lengths, lengths))

    def mask(self, *kinds: str) -> Bool[np.ndarray, " C"]:
        """Which chains are of these kinds."""
        return np.isin(self.kinds, kinds)

    def token_chain(self, device: torch.device) -> Int[Tensor, " T"]:
        """The chain of each token."""
        return torch.from_numpy(np.repeat(np.arange(self.num_chains), self.lengths)).to(device)

    def sum(self, x: Shaped[Tensor, "R T *K"]) -> Shaped[Tensor, "R C *K"]:
        """Sums over the columns of each chain: one kernel a chain, and the same order of
        summation every time.
        """
        return torch.stack([x[:, a:b].sum(1) for a, b in self._pairs()], 1)

    def amin(self, x: Float[Tensor, "R T"]) -> Float[Tensor, "R C"]:
        """Minima over the columns of each chain."""
        return torch.stack([x[:, a:b].amin(1) for a, b in self._pairs()], 1)

    def rows(self, first: int, num_rows: int) -> Iterator[tuple[int, slice]]:
        """(chain, its rows) among the rows first .. first + num_rows - 1, counted from `first`."""
        for chain, (a, b) in enumerate(self._pairs()):
            low = max(a, first)
            high = min(b, first + num_rows)
            if low < high:
                yield chain, slice(low - first, high - first)

    def _pairs(self) -> list[tuple[int, int]]:
        return list(zip(self.starts[:-1], self.starts[1:], strict=True))


def tm_d0(
    num_tokens: Int[np.ndarray, "*S"] | int,
) -> Float[np.ndarray, "*S"] | np.float64:
    """The TM-score's distance scale 1.24 (n - 15)^(1/3) - 1.8 in Å, n at least 19 (Yang &
    Skolnick 2004).
    """
    return 1.24 * np.cbrt(np.maximum(num_tokens, 19.0) - 15.0) - 1.8


def tm_of_bins(num_tokens: Int[np.ndarray, "*S"] | int) -> Float[Tensor, "*S 64"]:
    """1 / (1 + (x / d0)^2) at the centre x of every PAE bin, with the d0 of so many tokens."""
    d0 = np.asarray(tm_d0(num_tokens))[..., None]
    return torch.tensor(1 / (1 + (BIN_CENTERS / d0) ** 2), dtype=torch.float32)


def iptm_partners(spans: ChainSpans) -> Bool[np.ndarray, "4 C C"]:
    """[score, a, b]: do the tokens of chain b count for a frame in chain a? Of ptm, iptm,
    ligand_iptm, protein_iptm (Boltz, `compute_ptms`).
    """
    ligand = spans.mask("ligand")
    protein = spans.mask("protein")
    other = ~np.eye(spans.num_chains, dtype=bool)
    mixed = np.logical_and.outer(ligand, protein)
    proteins = np.logical_and.outer(protein, protein)
    return np.stack([np.ones_like(other), other, other & (mixed | mixed.T), other & proteins])


def ipsae_floor(spans: ChainSpans) -> Float[np.ndarray, "C C"]:
    """Least d0 of ipSAE in Å: 2 if either chain is a nucleic acid, else 1 (ipsae.py, `calc_d0`)."""
    nucleic = spans.mask("dna", "rna")
    return np.where(nucleic[:, None] | nucleic[None, :], 2.0, 1.0)


def ipsae_d0(
    num_residues: Int[np.ndarray, "C C"], floor: Float[np.ndarray, "C C"]
) -> Float[np.ndarray, "C C"]:
    """d0 of ipSAE for one number of residues per chain pair: the floor up to 27 (ipsae.py,
    `calc_d0`).
    """
    d0 = 1.24 * np.cbrt(np.maximum(num_residues, 27.0) - 15.0) - 1.8
    return np.where(num_residues > 27, np.maximum(d0, floor), floor)


def ipsae_d0_by_row(
    num_partners: Float[Tensor, "R C"], floor: Float[Tensor, "R C"]
) -> Float[Tensor, "R C"]:
    """d0 of ipSAE for a number of residues per row: n at least 26, so 27 gives 1.04 and not the 1.0
    that `ipsae_d0` gives (ipsae.py, `calc_d0_array`).
    """
    return torch.maximum(1.24 * (num_partners.clamp(min=26.0) - 15.0) ** (1 / 3) - 1.8, floor)


def valid_frames(
    features: Features, coords: Float[Tensor, "A 3"], spans: ChainSpans
) -> Bool[Tensor, " N"]:
    """Tokens whose three frame atoms span a plane in the predicted structure (Boltz,
    `compute_frame_pred`).

    A ligand's frames are rebuilt from the prediction: the nearest atom of its chain, the atom, the
    next nearest; one of fewer than three atoms has none. Invalid are frames with an angle below 25
    degrees or above 155 (|cos| >= 0.9063), or with an arm of at most 0.01 Å.
    """
    frames = features.frame_atoms.clone()
    valid = features.token_mask > 0
    for chain in np.flatnonzero(spans.mask("ligand")):
        tokens = slice(spans.starts[chain], spans.starts[chain + 1])
        first, last = (
            int(i) for i in np.searchsorted(features.layout.atom_token, (tokens.start, tokens.stop))
        )
        assert last - first == tokens.stop - tokens.start, "a ligand has one token per atom"
        if last - first < 3:
            valid[tokens] = False
            continue
        order = _distances(coords[first:last], coords[first:last]).argsort(dim=1, stable=True)
        frames[tokens] = order[:, [1, 0, 2]].to(frames.dtype) + first
    a, b, c = coords.float()[frames].unbind(1)
    return valid & ~_collinear(b - a, b - c)


def _collinear(u: Float[Tensor, "N 3"], v: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:
    """Boltz's `compute_collinear_mask`, negated."""
    long_u = u.norm(dim=1)
    long_v = v.norm(dim=1)
    cosine = (u / (long_u + 1e-6)[:, None] * (v / (long_v + 1e-6)[:, None])).sum(1)
    return (cosine.abs() >= 0.9063) | (long_u <= 1e-2) | (long_v <= 1e-2)


def _distances(x: Float[Tensor, "R 3"], y: Float[Tensor, "T 3"]) -> Float[Tensor, "R T"]:
    # Not by matrix products: those lose the small differences of large coordinates.
    return torch.cdist(x.float(), y.float(), compute_mode="donot_use_mm_for_euclid_dist")


def contact_counts(
    points: Float[Tensor, "T 3"], spans: ChainSpans, first: int, num_rows: int
) -> Float[Tensor, "R C"]:
    """Tokens of each chain nearer than 8 Å to each of the rows first .. first + num_rows - 1; [row,
    own chain] counts the token itself. `points` are the representative atoms in Å.
    """
    counts = points.new_zeros((num_rows, spans.num_chains), dtype=torch.float32)
    for rows in _steps(num_rows, spans.num_tokens):
        distance = _distances(points[first + rows.start : first + rows.stop], points)
        counts[rows] = spans.sum((distance < CONTACT_CUTOFF).float())
    return counts


def domain_sizes(
    pae: Float[Tensor, "R T"],
    nearest: Float[Tensor, "R C"],
    spans: ChainSpans,
    first: int,
    cp: ContextParallel,
) -> Int[np.ndarray, "C C"]:
    """[a, b]: how many rows of a and columns of b have any error below 10 Å between a and b; all
    ranks together.

    `nearest` is the least error of each row in each chain.
    """
    near_rows = sum_by_chain((nearest < PAE_CUTOFF).float(), spans, first).int()
    near_columns = near_rows.new_zeros((spans.num_chains, spans.num_tokens))
    for chain, those in spans.rows(first, pae.shape[0]):
        near_columns[chain] = pae[those].amin(0) < PAE_CUTOFF
    both = cp.all_reduce(torch.cat([near_rows, near_columns], 1))
    near_rows, near_columns = both.split([spans.num_chains, spans.num_tokens], 1)
    return (near_rows + spans.sum((near_columns > 0).int())).cpu().numpy()


def ipsae_rows(
    pae: Float[Tensor, "R T"],
    spans: ChainSpans,
    row_chain: Int[Tensor, " R"],
    d0chn: Float[Tensor, "C C"],
    d0dom: Float[Tensor, "C C"],
    floor: Float[Tensor, "C C"],
) -> Float[Tensor, "R C 3"]:
    """ipSAE of each row i against each chain b, for d0res, d0chn and d0dom.

    mean over the j of b with PAE[i, j] < 10 Å of 1 / (1 + (PAE[i, j] / d0)^2), 0 without such j
    (DunbrackLab/IPSAE, ipsae.py v4). The d0 tables are [chain of i, b], in Å.
    """
    scores = pae.new_zeros((pae.shape[0], spans.num_chains, 3))
    column_chain = spans.token_chain(pae.device)
    for rows in _steps(*pae.shape):
        error = pae[rows]
        chain = row_chain[rows]
        near = (error < PAE_CUTOFF).float()
        count = spans.sum(near)
        d0s = (ipsae_d0_by_row(count, floor[chain]), d0chn[chain], d0dom[chain])
        for kind, d0 in enumerate(d0s):
            tm = near / (1 + (error / d0[:, column_chain]) ** 2)
            scores[rows, :, kind] = spans.sum(tm) / count.clamp(min=1)
    return scores


def max_by_chain(
    x: Float[Tensor, "R C *K"], spans: ChainSpans, first: int
) -> Float[Tensor, "C C *K"]:
    """Maxima over the rows of each chain among rows first ..; -inf for chains without rows here."""
    best = x.new_full((spans.num_chains, *x.shape[1:]), -torch.inf)
    for chain, rows in spans.rows(first, x.shape[0]):
        best[chain] = x[rows].amax(0)
    return best


def sum_by_chain(
    x: Float[Tensor, "R C *K"], spans: ChainSpans, first: int
) -> Float[Tensor, "C C *K"]:
    """Sums in double precision over the rows of each chain among rows first ..; 0 for chains
    without rows here.
    """
    total = x.new_zeros((spans.num_chains, *x.shape[1:]), dtype=torch.float64)
    for chain, rows in spans.rows(first, x.shape[0]):
        total[chain] = x[rows].sum(0, dtype=torch.float64)
    return total


def _steps(num_rows: int, num_columns: int) -> Iterator[slice]:
    step = max(1, _STEP_PAIRS // max(1, num_columns))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))
