"""How does every row of the pair representation attend over its columns, with one bias for all
rows?
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from foldcp.kernels.dispatch import fused
from foldcp.kernels.residual import cat_parts

MASKED = -1e9  # added to the score of a padding key, as Boltz does
CHUNK_BYTES = 1 << 28  # largest [rows, H, N, N] in fp32 that the reference makes at once


def triangle_attention(
    q: Float[Tensor, "I N H D"],
    k: Float[Tensor, "I N H D"],
    v: Float[Tensor, "I N H D"],
    bias: Float[Tensor, "H N N"],
    mask: Float[Tensor, " N"],
) -> Float[Tensor, "I N H D"]:
    """out[i, n] = sum_m softmax_m(q[i, n] . k[i, m] / sqrt(D) + bias[n, m] - 1e9 (1 - mask[m]))
    v[i, m].

    One softmax per row i, query n and head; `mask` is 1 at tokens and 0 at padding. q is not scaled
    beforehand. Any strides; result in the type of q. Differentiable in q, k, v and bias.
    Source: AlphaFold 3, algorithms 14 and 15.
    """
    if not fused(q.device, q.dtype):
        return triangle_attention_reference(q, k, v, bias, mask)
    from foldcp.kernels.triangle_attention_gradient import triangle_attention_triton

    return triangle_attention_triton(q, k, v, bias, mask)


def attention_under(
    bias: Float[Tensor, "H N N"], mask: Float[Tensor, " N"]
) -> Callable[..., Tensor]:
    """`triangle_attention` of q, k and v of any rows under this bias, which is made ready once for
    all of them; for each call again where a gradient may be wanted.
    """
    if torch.is_grad_enabled() or not fused(bias.device, bias.dtype):
        return lambda q, k, v: triangle_attention(q, k, v, bias, mask)
    from foldcp.kernels.bias_layout import prepare
    from foldcp.kernels.biased_attention_triton import forward

    tiles = prepare(bias, mask)
    return lambda q, k, v: forward(q, k, v, tiles)[0]


def triangle_attention_reference(
    q: Float[Tensor, "I N H D"],
    k: Float[Tensor, "I N H D"],
    v: Float[Tensor, "I N H D"],
    bias: Float[Tensor, "H N N"],
    mask: Float[Tensor, " N"],
) -> Float[Tensor, "I N H D"]:
    """The same in torch, a few rows at a time; recomputed, not kept, for the gradient."""
    additive = (bias.to(q.dtype) + (MASKED * (1 - mask.to(q.dtype)))).unsqueeze(0)
    num_rows, num_tokens, num_heads, _ = q.shape
    step = max(1, CHUNK_BYTES // (4 * num_heads * num_tokens**2))
    wants_grad = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, bias))
    out = []
    for start in range(0, num_rows, step):
        rows = slice(start, start + step)
        if wants_grad:
            out.append(
                checkpoint(_attend, q[rows], k[rows], v[rows], additive, use_reentrant=False)
            )
        else:
            out.append(_attend(q[rows], k[rows], v[rows], additive))
    return cat_parts(out)


def _attend(
    q: Float[Tensor, "R N H D"],
    k: Float[Tensor, "R N H D"],
    v: Float[Tensor, "R N H D"],
    additive: Float[Tensor, "1 H N N"],
) -> Float[Tensor, "R N H D"]:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=additive).transpose(1, 2)
