"""How do tokens attend to each other with a pair bias that several samples share?"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.triangle_attention import MASKED


def pair_bias_attention(
    q: Float[Tensor, "M I H D"],
    k: Float[Tensor, "M N H D"],
    v: Float[Tensor, "M N H D"],
    bias: Float[Tensor, "H I N"],
    mask: Float[Tensor, " N"],
) -> Float[Tensor, "M I H D"]:
    """out[m, i] = sum_j softmax_j(q[m, i] . k[m, j] / sqrt(D) + bias[i, j] - 1e9 (1 - mask[j])) v[m, j].

    M samples share the bias of this rank's I queries over all N keys; `mask` is 1 at tokens, 0 at padding.
    Any strides (fastest where the keys of the bias are adjacent); result in the type of v. Differentiable.
    Source: AlphaFold 3, algorithm 24, lines 4 to 8.
    """
    return pair_bias_attention_reference(q, k, v, bias, mask)


def pair_bias_attention_reference(
    q: Float[Tensor, "M I H D"],
    k: Float[Tensor, "M N H D"],
    v: Float[Tensor, "M N H D"],
    bias: Float[Tensor, "H I N"],
    mask: Float[Tensor, " N"],
) -> Float[Tensor, "M I H D"]:
    """The same in torch."""
    additive = (bias.to(q.dtype) + (MASKED * (1 - mask.to(q.dtype)))).unsqueeze(0)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=additive).transpose(1, 2)
