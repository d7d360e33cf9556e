"""Conversion between Boltz's whole arrays and a rank's shards, one form for each kind of array."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features


@dataclass(frozen=True)
class Share:
    """The shard of a rank; `features` are padded, `num_tokens` is without padding, `chosen` are
    alignment rows.
    """

    cp: ContextParallel
    features: Features
    num_tokens: int
    chosen: list[int] | None = None

    def padded(self, x: Tensor, *dims: int) -> Tensor:
        """Zeros after the tokens, along `dims`."""
        for dim in dims:
            extra = list(x.shape)
            extra[dim] = self.features.num_tokens - self.num_tokens
            x = torch.cat([x, x.new_zeros(extra)], dim)
        return x

    def gathered(self, x: Tensor) -> Tensor:
        """[I, *] -> [1, T, *]."""
        return self.cp.all_gather(x)[: self.num_tokens][None]


@dataclass(frozen=True)
class Form:
    """Conversion of one kind of array to shards and back."""

    to_shard: Callable[
        [Share, Tensor], Tensor
    ]  # Boltz's, with a batch dimension -> this rank's, a copy
    to_boltz: Callable[[Share, Tensor], Tensor]
    cut: bool = True  # whether a rank holds its rows only


def _own(share: Share, x: Tensor) -> Tensor:
    return share.cp.shard(x).clone()


SINGLE = Form(
    lambda share, s: _own(share, share.padded(s[0], 0)),
    lambda share, s: share.gathered(s),
)  # [I, C]
PAIRS = Form(
    lambda share, z: _own(share, share.padded(z[0], 0, 1)),
    lambda share, z: share.gathered(z)[:, :, : share.num_tokens],
)  # [I, N, C]
ALIGNMENT = Form(
    lambda share, m: _own(share, share.padded(m[0].transpose(0, 1), 0)),
    lambda share, m: share.gathered(m).transpose(1, 2),
)  # [1, S, T, C] <-> [I, S, C]
TOKENS = Form(
    lambda share, s: share.padded(s[0], 0).clone(),
    lambda share, s: s[: share.num_tokens][None],
    cut=False,
)  # [N, C]
ATOMS = Form(lambda share, x: x[0].clone(), lambda share, x: x[None], cut=False)  # [A, C]
SAMPLES = Form(lambda share, x: x.clone(), lambda share, x: x, cut=False)  # [M, A, C]
SAMPLE_TOKENS = Form(
    lambda share, a: share.padded(a, 1).clone(),
    lambda share, a: a[:, : share.num_tokens],
    cut=False,
)  # [M, N, C]
TIME = Form(lambda share, t: t[:1].clone(), lambda share, t: t, cut=False)  # one for all samples


def window_bias(num_layers: int) -> Form:
    """[1, K, 32, 128, L h] <-> [L, K, h, 32, 128]."""
    return Form(
        lambda share, b: b[0].unflatten(-1, (num_layers, -1)).permute(3, 0, 4, 1, 2).clone(),
        lambda share, b: b.permute(1, 3, 4, 0, 2).flatten(3)[None],
        cut=False,
    )


def token_bias(num_layers: int) -> Form:
    """[1, T, T, L H] <-> [L, H, I, N]."""
    return Form(
        lambda share, b: (
            PAIRS.to_shard(share, b).unflatten(-1, (num_layers, -1)).permute(2, 3, 0, 1).clone()
        ),
        lambda share, b: PAIRS.to_boltz(share, b.permute(2, 3, 0, 1).flatten(2)),
    )
