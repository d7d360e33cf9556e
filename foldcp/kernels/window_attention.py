"""How do atoms attend within windows: 32 queries that see the 128 atoms around them?"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import with_reference_backward
from foldcp.kernels.dispatch import fused

QUERIES = 32
KEYS = 128
MARGIN = (KEYS - QUERIES) // 2  # keys before and after the queries of a window
MASKED = -1e6  # added to the score of a key that is padding, or beyond the ends, as Boltz does


def window_attention(
    q: Float[Tensor, "M A H D"],
    k: Float[Tensor, "M A H D"],
    v: Float[Tensor, "M A H D"],
    bias: Float[Tensor, "K H 32 128"],
    mask: Float[Tensor, " A"],
) -> Float[Tensor, "M A H D"]:
    """out[m, a] = sum_b softmax_b(q[m, a] . k[m, b] / sqrt(D) + bias - 1e6 (1 - mask[b])) v[m, b].

    Window w = a // 32 sees the atoms b = 32 w - 48 .. 32 w + 79; its K = A / 32 biases are shared
    by the M samples. Any strides; result in the type of v. Source: AlphaFold 3, algorithm 7.
    """
    if not fused(q.device, q.dtype):
        return window_attention_reference(q, k, v, bias, mask)
    from foldcp.kernels.window_attention_triton import forward

    return with_reference_backward(forward, window_attention_reference, q, k, v, bias, mask)


def window_attention_reference(
    q: Float[Tensor, "M A H D"],
    k: Float[Tensor, "M A H D"],
    v: Float[Tensor, "M A H D"],
    bias: Float[Tensor, "K H 32 128"],
    mask: Float[Tensor, " A"],
) -> Float[Tensor, "M A H D"]:
    """The same in torch."""
    masked = MASKED * (1 - F.pad(mask, (MARGIN, MARGIN)).unfold(0, KEYS, QUERIES))
    additive = (bias + masked[:, None, None]).to(q.dtype)
    q = q.unflatten(1, (-1, QUERIES)).transpose(2, 3)
    k, v = (_windows(x) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=additive).transpose(2, 3).flatten(1, 2)


def _windows(x: Float[Tensor, "M A H D"]) -> Float[Tensor, "M K H 128 D"]:
    padded = F.pad(x, (0, 0, 0, 0, MARGIN, MARGIN))
    return padded.unfold(1, KEYS, QUERIES).movedim(-1, -2)
