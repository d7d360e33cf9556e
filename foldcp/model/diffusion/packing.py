"""Several complexes in one call of the score network, one after the other along tokens and atoms.

Layers on tokens and atoms do not see the difference; tokens attend within their complex, and
between the atoms of two complexes there is a window's margin of padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.config import WINDOW_KEYS, WINDOW_QUERIES
from foldcp.kernels.conditioned import Modulation
from foldcp.model.diffusion.score_model import DenoiserCache, PreparedTokenAttention
from foldcp.model.layers.atoms import AtomTokens
from foldcp.model.layers.transformer import Attend, LayerModulation

# Whole windows that are longer than what a window sees beyond its queries.
GAP = (WINDOW_KEYS // 2 // WINDOW_QUERIES) * WINDOW_QUERIES


def atoms_of_each(num_atoms: Sequence[int]) -> int:
    """How many atoms each of several complexes is padded to, from their numbers of atoms, which
    are multiples of 32.
    """
    return max(num_atoms) + (GAP if len(num_atoms) > 1 else 0)


def packed(caches: Sequence[DenoiserCache]) -> DenoiserCache:
    """One cache for several complexes of as many tokens, padding included; on one rank. Raises
    torch.OutOfMemoryError where memory did not hold the pair biases of one.

    The lists `token_attention` of several caches are empty afterwards, so that no more than a
    layer of their biases is in memory twice.
    """
    if len(caches) == 1:
        return caches[0]
    A = atoms_of_each([cache.present.shape[1] for cache in caches])
    return replace(
        caches[0],
        single=torch.cat([cache.single for cache in caches]),
        q=_cat_atoms([cache.q for cache in caches], A),
        encoder_bias=_cat_windows([cache.encoder_bias for cache in caches], A),
        decoder_bias=_cat_windows([cache.decoder_bias for cache in caches], A),
        encoder_modulations=_modulations([cache.encoder_modulations for cache in caches], A),
        decoder_modulations=_modulations([cache.decoder_modulations for cache in caches], A),
        token_attention=_token_attention([cache.token_attention for cache in caches]),
        atoms=_atom_tokens([cache.atoms for cache in caches], A),
        present=torch.stack([F.pad(c.present[0], (0, A - c.present.shape[1])) for c in caches]),
    )


def _cat_atoms(of_each: Sequence[Tensor], A: int) -> Tensor:
    return torch.cat([F.pad(x, (0, 0, 0, A - len(x))) for x in of_each])


def _cat_windows(
    of_each: Sequence[Float[Tensor, "L _ h 32 128"]], A: int
) -> Float[Tensor, "L _ h 32 128"]:
    num_windows = A // WINDOW_QUERIES
    no_padding = [0] * 6
    return torch.cat([F.pad(x, (*no_padding, 0, num_windows - x.shape[1])) for x in of_each], 1)


def _modulations(of_each: Sequence[list[LayerModulation]], A: int) -> list[LayerModulation]:
    def cat(halves: Sequence[Modulation]) -> Modulation:
        return Modulation(
            scale=_cat_atoms([half.scale for half in halves], A),
            shift=_cat_atoms([half.shift for half in halves], A),
            gate=_cat_atoms([half.gate for half in halves], A),
        )

    return [
        LayerModulation(
            attention=cat([layer.attention for layer in layers]),
            transition=cat([layer.transition for layer in layers]),
            weights=layers[0].weights,
        )
        for layers in zip(*of_each, strict=True)
    ]


def _token_attention(of_each: Sequence[list[Attend]]) -> list[Attend]:
    layers = []
    while of_each[0]:
        layers.append(_within_complexes([attends.pop(0) for attends in of_each]))
    return layers


def _within_complexes(attends: Sequence[Attend]) -> Attend:
    """Tokens attend to those of their complex."""
    prepared = [each for each in attends if isinstance(each, PreparedTokenAttention)]
    if len(prepared) < len(attends):
        raise torch.OutOfMemoryError(
            f"the pair biases of {len(attends)} complexes do not fit into memory; "
            "fold fewer at once"
        )
    attentions = [each.attention for each in prepared]
    return PreparedTokenAttention(prepared[0].cp, type(attentions[0]).packed(attentions))


def _atom_tokens(of_each: Sequence[AtomTokens], A: int) -> AtomTokens:
    """Padding between two complexes counts as atoms of a token, the last one before it, to whose
    sum it adds zeros.
    """
    N = len(of_each[0].num_atoms)
    starts = [each.first_atom[:-1] + A * index for index, each in enumerate(of_each)]
    end = of_each[-1].first_atom[-1:] + A * (len(of_each) - 1)
    atom_tokens = [
        F.pad(each.atom_token, (0, A - len(each.atom_token))) + N * index
        for index, each in enumerate(of_each)
    ]
    atom_masks = [F.pad(each.atom_mask, (0, A - len(each.atom_mask))) for each in of_each]
    return AtomTokens(
        atom_mask=torch.cat(atom_masks),
        atom_token=torch.cat(atom_tokens),
        first_atom=torch.cat([*starts, end]),
        num_atoms=torch.cat([each.num_atoms for each in of_each]),
    )
