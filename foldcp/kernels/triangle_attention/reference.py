"""Triangle attention: the PyTorch reference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from foldcp.kernels.blocks import cat_blocks

MASKED = -1e9  # added to the score of a padding key, as Boltz does
MAX_SCORE_BYTES = 1 << 28  # of the largest [rows, H, N, N] in fp32 that is made at once

# q, k and v of any rows -> what attention makes of them, under a bias and a mask
RowAttention = Callable[[Tensor, Tensor, Tensor], Tensor]


class TriangleAttention:
    """Every row of the pair representation attends over its columns, with one bias for all rows.

    out[i, n] = sum_m softmax_m(s[i, n, m]) v[i, m] with
    s[i, n, m] = q[i, n] . k[i, m] / sqrt(D) + bias[n, m] - 1e9 (1 - mask[m])

    One softmax per row i, query n and head; `mask` is 1 at tokens and 0 at padding. q is not scaled
    beforehand. Any strides; result in the type of q. Differentiable in q, k, v and bias. Source:
    AlphaFold 3, algorithms 14 and 15.
    """

    def __call__(
        self,
        q: Float[Tensor, "I N H D"],
        k: Float[Tensor, "I N H D"],
        v: Float[Tensor, "I N H D"],
        bias: Float[Tensor, "H N N"],
        mask: Float[Tensor, " N"],
    ) -> Float[Tensor, "I N H D"]:
        """A few rows at a time; for the gradient they are recomputed, not kept."""
        additive = (bias.to(q.dtype) + (MASKED * (1 - mask.to(q.dtype)))).unsqueeze(0)
        num_rows, num_tokens, num_heads, _ = q.shape
        step = max(1, MAX_SCORE_BYTES // (4 * num_heads * num_tokens**2))
        wants_grad = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, bias))
        attend = _attend
        if wants_grad:
            attend = partial(checkpoint, _attend, use_reentrant=False, preserve_rng_state=False)
        out = []
        for start in range(0, num_rows, step):
            rows = slice(start, start + step)
            out.append(attend(q[rows], k[rows], v[rows], additive))
        return cat_blocks(out)

    def under(self, bias: Float[Tensor, "H N N"], mask: Float[Tensor, " N"]) -> RowAttention:
        """Attention under this bias, which kernels prepare once for all rows; for each call again
        where a gradient may be wanted.
        """
        return lambda q, k, v: self(q, k, v, bias, mask)

    def bytes_per_row(self, N: int, channels: int, inner: int, dtype: torch.dtype) -> int:
        """Bytes of the intermediates of a row of N pairs, from its projections to its output: z
        normalised, q, k, v and what attention makes of them, scores, gates and copies.

        `inner` channels are those of all heads, in `dtype`.
        """
        return N * (8 * channels + 15 * inner * dtype.itemsize)


def _attend(
    q: Float[Tensor, "R N H D"],
    k: Float[Tensor, "R N H D"],
    v: Float[Tensor, "R N H D"],
    additive: Float[Tensor, "1 H N N"],
) -> Float[Tensor, "R N H D"]:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=additive).transpose(1, 2)
