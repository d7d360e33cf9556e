"""Window attention, and the windows themselves; the PyTorch reference."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.config import WINDOW_KEYS, WINDOW_QUERIES

MARGIN = (WINDOW_KEYS - WINDOW_QUERIES) // 2  # keys before and after the queries of a window
MASKED = -1e6  # added to the score of a key that is padding, or beyond the ends, as Boltz does


def query_windows(x: Tensor, dim: int = -2) -> Tensor:
    """The atoms of each window: A along `dim` becomes K, 32."""
    return x.unflatten(dim, (-1, WINDOW_QUERIES))


def key_windows(x: Tensor, dim: int = -2) -> Tensor:
    """The atoms that each window attends to, zeros beyond both ends: A along `dim`, counted from
    the end, becomes K, and 128 is inserted before the last dimension.
    """
    padding = [0, 0] * (-1 - dim) + [MARGIN, MARGIN]
    return F.pad(x, padding).unfold(dim, WINDOW_KEYS, WINDOW_QUERIES).movedim(-1, -2)


class WindowAttention:
    """out[m, a] = sigmoid(gate[m, a]) sum_b softmax_b(q[m, a] . k[m, b] / sqrt(D) + bias -
    1e6 (1 - mask[b])) v[m, b].

    Window w = a // 32 attends to the atoms b = 32 w - 48 .. 32 w + 79; its K = A / 32 biases are
    shared by the M samples. Any strides; result in the type of v. Source: AlphaFold 3, algorithm 7.
    """

    def __call__(
        self,
        q: Float[Tensor, "M A H D"],
        k: Float[Tensor, "M A H D"],
        v: Float[Tensor, "M A H D"],
        gate: Float[Tensor, "M A H D"],
        bias: Float[Tensor, "K H 32 128"],
        mask: Float[Tensor, " A"],
    ) -> Float[Tensor, "M A H D"]:
        key_mask = key_windows(mask[:, None])[..., 0]
        masked = MASKED * (1 - key_mask)
        additive = (bias + masked[:, None, None]).to(q.dtype)
        q = query_windows(q, -3).transpose(2, 3)
        k = key_windows(k, -3)
        v = key_windows(v, -3)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=additive)
        return out.transpose(2, 3).flatten(1, 2) * gate.sigmoid()
