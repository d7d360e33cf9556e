"""The mean over each token's atoms in Triton: one read of the atoms."""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.kernels.autograd import with_reference_backward
from foldcp.kernels.token_mean.reference import EPSILON, TokenMean
from foldcp.kernels.triton_utils import next_power_of_2

EPS = tl.constexpr(EPSILON)


@triton.jit
@no_type_check
def _token_mean(
    X, FIRST_ATOM, NUM_ATOMS, OUT, num_atoms, num_tokens, C: tl.constexpr, BC: tl.constexpr
) -> None:
    """A program has one token of one sample."""
    token = tl.program_id(0)
    sample = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, BC)
    inside = channel < C
    first = tl.load(FIRST_ATOM + token)
    count = tl.load(NUM_ATOMS + token)
    place = (sample * num_atoms + first) * C + channel
    total = tl.zeros([BC], tl.float32)
    for _ in range(count):
        total += tl.maximum(tl.load(X + place, mask=inside, other=0.0).to(tl.float32), 0.0)
        place += C
    out = (sample * num_tokens + token) * C + channel
    tl.store(OUT + out, total / (count + EPS), mask=inside)


class TokenMeanTriton(TokenMean):
    """The mean in one kernel, with the gradient of the reference."""

    def __call__(
        self,
        x: Float[Tensor, "*M A C"],
        atom_mask: Float[Tensor, " A"],
        first_atom: Int[Tensor, " E"],
        num_atoms: Int[Tensor, "N 1"],
    ) -> Float[Tensor, "*M N C"]:
        return with_reference_backward(self._mean, TokenMean(), x, atom_mask, first_atom, num_atoms)

    def _mean(self, x: Tensor, atom_mask: Tensor, first_atom: Tensor, num_atoms: Tensor) -> Tensor:
        *samples, A, C = x.shape
        N = len(num_atoms)
        x = x.contiguous()
        out = x.new_empty((*samples, N, C), dtype=torch.float32)
        grid = (N, out[..., 0, 0].numel())
        _token_mean[grid](x, first_atom, num_atoms, out, A, N, C=C, BC=next_power_of_2(C))
        return out
