"""How do tokens attend to each other with a pair bias that several samples share?"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.kernels.autograd import with_reference_backward
from foldcp.kernels.dispatch import fused, hopper
from foldcp.kernels.triangle_attention.reference import MASKED


@dataclass(frozen=True)
class PreparedBias:
    """A pair bias and its mask, as the attention of this device reads them: for a bias that is
    used many times.
    """

    ready: Tensor  # additive [1, H, I, N], or tiles for the kernel
    tiled: bool


def prepare_bias(bias: Float[Tensor, "H I N"], mask: Float[Tensor, " N"]) -> PreparedBias:
    """The bias for `prepared_attention` with queries of its type; takes as much memory as the
    bias. No gradient.
    """
    if not fused(bias.device, bias.dtype):
        return PreparedBias(_additive(bias, mask), tiled=False)
    from foldcp.kernels.bias_layout import prepare

    return PreparedBias(prepare(bias, mask), tiled=True)


def prepared_attention(
    q: Float[Tensor, "M I H D"],
    k: Float[Tensor, "M N H D"],
    v: Float[Tensor, "M N H D"],
    bias: PreparedBias,
) -> Float[Tensor, "M I H D"]:
    """`pair_bias_attention` with a prepared bias. No gradient."""
    if not bias.tiled:
        return _attend(q, k, v, bias.ready)
    from foldcp.kernels.triangle_attention.triton import forward

    return forward(q, k, v, bias.ready, hopper=hopper(q.device))[0]


def pair_bias_attention(
    q: Float[Tensor, "M I H D"],
    k: Float[Tensor, "M N H D"],
    v: Float[Tensor, "M N H D"],
    bias: Float[Tensor, "H I N"],
    mask: Float[Tensor, " N"],
) -> Float[Tensor, "M I H D"]:
    """out[m, i] = sum_j softmax_j(q[m, i] . k[m, j] / sqrt(D) + bias[i, j] - 1e9 (1 - mask[j]))
    v[m, j].

    M samples share the bias of this rank's I queries over all N keys; `mask` is 1 at tokens, 0 at
    padding. Any strides; result in the type of q. Differentiable. Source: AlphaFold 3, algorithm
    24, lines 4 to 8.
    """
    if not fused(q.device, q.dtype):
        return pair_bias_attention_reference(q, k, v, bias, mask)
    from foldcp.kernels.bias_layout import prepare
    from foldcp.kernels.triangle_attention.triton import forward

    def kernel(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
        return forward(q, k, v, prepare(bias, mask), hopper=hopper(q.device))[0]

    return with_reference_backward(kernel, pair_bias_attention_reference, q, k, v, bias, mask)


def pair_bias_attention_reference(
    q: Float[Tensor, "M I H D"],
    k: Float[Tensor, "M N H D"],
    v: Float[Tensor, "M N H D"],
    bias: Float[Tensor, "H I N"],
    mask: Float[Tensor, " N"],
) -> Float[Tensor, "M I H D"]:
    """The same in torch."""
    return _attend(q, k, v, _additive(bias.to(q.dtype), mask))


def _additive(bias: Float[Tensor, "H I N"], mask: Float[Tensor, " N"]) -> Float[Tensor, "1 H I N"]:
    return (bias + MASKED * (1 - mask.to(bias.dtype))).unsqueeze(0)


def _attend(
    q: Float[Tensor, "M I H D"],
    k: Float[Tensor, "M N H D"],
    v: Float[Tensor, "M N H D"],
    additive: Float[Tensor, "1 H I N"],
) -> Float[Tensor, "M I H D"]:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=additive).transpose(1, 2)
